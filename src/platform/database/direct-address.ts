import { z } from 'zod';

/**
 * Where the database is, of programs that hold one connection for as long as they work (a lock, a snapshot): PostgreSQL itself, since a
 * pooler would lend that connection to others. Names and defaults are those of the backend's settings.
 */
export const DIRECT_DATABASE_VARIABLES = {
  DB_HOST: z.string().default('127.0.0.1'),
  DB_PORT: z.coerce.number().int().default(5432),
  DB_DIRECT_HOST: z.string().optional(),
  DB_DIRECT_PORT: z.coerce.number().int().optional(),
  DB_NAME: z.string().default('bore_db'),
  DB_USER: z.string().default('bore_user'),
};

const Variables = z.object(DIRECT_DATABASE_VARIABLES);

/** All but the password, as node-postgres takes it. */
export function directAddressOf(env: z.output<typeof Variables>) {
  return {
    host: env.DB_DIRECT_HOST ?? env.DB_HOST,
    port: env.DB_DIRECT_PORT ?? env.DB_PORT,
    database: env.DB_NAME,
    user: env.DB_USER,
  };
}
