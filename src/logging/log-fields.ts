/**
 * Everything that may stand in a line of the log beside its text: by name, and for each name what it may look like. What is not on
 * the list is left out and counted (`dropped`), so that an object that grows a field tomorrow does not put it into the log
 * unread. A test holds what the code logs to the list; docs/logging.md says what the names mean.
 */
import { reducedError } from './reduced-error.js';

/** What of a value is shown; undefined: it does not look as it should. */
type Shape = (value: unknown) => unknown;

/** Of what callers or other programs wrote. */
const TEXT_CHARS_MAX = 500;
/** Of a list; `…` stands for more. */
const ITEMS_MAX = 50;

const text: Shape = (value) => (typeof value === 'string' ? value.slice(0, TEXT_CHARS_MAX) : undefined);
const count: Shape = (value) => (typeof value === 'number' && Number.isFinite(value) ? value : undefined);
const matching =
  (pattern: RegExp): Shape =>
  (value) =>
    typeof value === 'string' && pattern.test(value) ? value : undefined;
/** Ids of ours, of servers, and names in code: nothing in them could be read as something else. */
const id = matching(/^[\w.:@/-]{1,200}$/);
/** A pattern of the router, and not what somebody asked for. */
const route = matching(/^(?:[A-Z]+ )?[\w/:.{}*-]{1,200}$/);
const address = matching(/^[0-9a-fA-F.:]{2,45}(%[\w.-]{1,20})?$/);
const ids: Shape = (value) => {
  if (!Array.isArray(value)) return undefined;
  const shown = value.slice(0, ITEMS_MAX).map((item) => id(item) ?? '?');
  return value.length > ITEMS_MAX ? [...shown, '…'] : shown;
};
const ports: Shape = (value) => {
  if (typeof value !== 'object' || value === null || !('min' in value && 'max' in value)) return undefined;
  const [min, max] = [count(value.min), count(value.max)];
  return min === undefined || max === undefined ? undefined : { min, max };
};

const NAMES: readonly (readonly [Shape, string])[] = [
  // what a line is about
  [id, 'requestId jobId task userId tunnelId sessionId serverId reporterId holder owner fromServer toServer replica'],
  [id, 'traceId spanId'],
  [id, 'signal code transport counter id context logLevel order call'],
  [ids, 'serverIds'],
  // of notifications
  [id, 'notification kind target'],
  // of requests
  [id, 'method'],
  [route, 'route'],
  [count, 'status durationMs bytesIn bytesOut'],
  [address, 'clientAddress peer'],
  // figures
  [
    count,
    'port controlPort adminPort peerPort metricsPort fromPort toPort epoch sequence from highest said counted failures attempts deliveries',
  ],
  [count, 'closed tunnels maxTunnels maxConnections wanted instances poolSize descriptors graceMs'],
  // rows deleted
  [count, 'connections tunnelSessions idempotencyKeys hours reporters auditEntries events refreshTokens sessions'],
  [count, 'portsInQuarantine apiKeys'],
  [ports, 'portRange'],
  // sentences of other programs, names of an operator
  [text, 'reason failure text host file folder'],
  [reducedError, 'err'],
];

const SHAPES: ReadonlyMap<string, Shape> = new Map(
  NAMES.flatMap(([shape, names]) => names.split(' ').map((name) => [name, shape] as const)),
);

/** The names that a line may have. */
export const LOG_FIELDS: ReadonlySet<string> = new Set(SHAPES.keys());

/** Of an object that is to be logged, what the list allows; `dropped` says how many of its fields are not there. */
export function allowedFields(fields: object): Record<string, unknown> {
  const allowed: Record<string, unknown> = {};
  let dropped = 0;
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    const shown = SHAPES.get(name)?.(value);
    if (shown === undefined) dropped++;
    else allowed[name] = shown;
  }
  if (dropped > 0) allowed['dropped'] = dropped;
  return allowed;
}
