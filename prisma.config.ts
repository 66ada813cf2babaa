import { defineConfig } from 'prisma/config';

/** Only `prisma generate` reads this: migrations run through `npm run migrate:*` (see CONTRIBUTING.md). */
export default defineConfig({ schema: 'prisma/schema.prisma' });
