import { z } from 'zod';

import { LogLevelName } from '../protocol/plane-api.js';

/** A day: whoever wants more for longer sets LOG_LEVEL. */
const MINUTES_MAX = 24 * 60;

export const SetLogLevelRequest = z.strictObject({
  level: LogLevelName.nullable().describe('null: as much as each program was started with, from now on'),
  minutes: z
    .int()
    .min(1)
    .max(MINUTES_MAX)
    .default(60)
    .describe('Until programs log again as much as they were started with'),
});
export type SetLogLevelRequest = z.output<typeof SetLogLevelRequest>;

export const LogLevelView = z.object({
  level: LogLevelName.nullable().describe('What all programs log for a time; null: what they were started with'),
  until: z.iso.datetime().nullable(),
  configured: z.string().describe('What the backend that answers was started with'),
});
export type LogLevelView = z.infer<typeof LogLevelView>;
