import { SetMetadata } from '@nestjs/common';

/** Limits by address that single routes have beside that of the whole API; each counts for itself. */
export type StrictLimit = 'signup' | 'login' | 'refresh' | 'password';

export const LIMITED_KEY = 'bore:limited';

/** A route where guessing or hashing is what callers may try: limited by address more strictly than the whole API. */
export const Limited = (limit: StrictLimit) => SetMetadata(LIMITED_KEY, limit);
