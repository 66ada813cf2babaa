import { afterAll, beforeAll, expect, it } from 'vitest';

import type { Answer, Api } from '../harness/api.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { ownPort } from '../harness/own-ports.js';
import { Pulse } from '../harness/pulse.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

/** Of each kind of request, before the server hangs. */
const ROUNDS = 50;
/** To delete: a round each, before and while it hangs. */
const SPARE_TUNNELS = 200;
/** A request that waits for the server takes a hundred times as long as before. */
const MEDIAN_RATIO_MAX = 2;
const P95_RATIO_MAX = 3;
/** Of fewer, it is the longest or the one before. */
const P95_OF_MIN = 40;
/** A busy machine alone can make this of a few milliseconds; a third of a call's time. */
const NOISE_MS = 500;
/** The time limit of a call: what is answered in less has not waited for one that hangs. */
const CALL_MS = 1_500;
/** However busy the machine is. */
const ANSWER_MS_MAX = 5_000;
/** A breaker is open for 5 s, its probe takes 1.5 s, and what is shown is a second old. */
const PROBED_MS = 20_000;

let plane: ControlPlane;
let server: BoreServerProcess;
let admin: Api;
let user: Api;
let spare: string[];

/** Requests by what they are about; those of `hangs` have the backend call the server that will hang. */
const requests: Record<string, () => Promise<Answer>> = {};
let connections = 0;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: { PLAN_FREE_TUNNELS: '1000', MAX_TUNNELS_PER_SERVER: '1000' } });
  const [backend] = plane.backends;
  if (!backend) throw new Error('there is no backend');
  const min = await ownPort(300);
  const ports = { min, max: min + 299 };
  server = await startBoreServer({ backend, serverId: 'hangs', ports, env: { BORE_LOCATION: 'hangs' } });
  await (await plane.newServer('well', 21_000)).register({ location: 'well' });
  admin = await plane.admin();
  user = await plane.newUser();

  requests['stats'] = () => admin.get('/api/v1/admin/circuit-breaker/stats');
  requests['list'] = () => user.get('/api/v1/tunnels?limit=10');
  for (const location of ['well', 'hangs']) {
    const id = await open(location);
    const path = `/api/v1/tunnels/${id}`;
    requests[`settings ${location}`] = () => user.patch(path, { maxConnections: (++connections % 500) + 1 });
    requests[`token ${location}`] = () => user.post(`${path}/token`, undefined);
    requests[`disconnect ${location}`] = () => user.post(`${path}/disconnect`, undefined);
  }
  spare = [];
  while (spare.length < SPARE_TUNNELS)
    spare.push(...(await Promise.all(Array.from({ length: 20 }, () => open('hangs')))));
  requests['deletion hangs'] = () => user.delete(`/api/v1/tunnels/${spare.pop()}`);
});

afterAll(async () => {
  server?.signal('SIGCONT');
  await server?.stop();
  await plane?.stop();
});

async function open(location: string): Promise<string> {
  const { body } = await user.post('/api/v1/tunnels', { location });
  expect(body.location).toBe(location);
  return body.id;
}

interface Measured {
  /** Times of each kind of request, in ms, ascending. */
  readonly times: Map<string, number[]>;
  /** The longest of all, less what a request that looks at nothing took meanwhile. */
  heldUpMs: number;
}

/** As long as `goOn` says. */
async function measure(kinds: readonly string[], goOn: (round: number) => boolean): Promise<Measured> {
  const times = new Map(kinds.map((kind) => [kind, new Array<number>()]));
  const pulse = new Pulse(plane.url());
  const spans: [from: number, to: number][] = [];
  for (let round = 0; goOn(round); round++) {
    for (const [kind, taken] of times) {
      if (kind.startsWith('deletion') && spare.length === 0) continue;
      const start = performance.now();
      const answer = await requests[kind]?.();
      spans.push([start, performance.now()]);
      taken.push(performance.now() - start);
      expect(answer?.status, `${kind}: ${answer?.text}`).toBeLessThan(300);
      if (kind === 'stats') breaker = answer?.body.breakers[0];
    }
  }
  await pulse.stop();
  for (const taken of times.values()) taken.sort((a, b) => a - b);
  const heldUpMs = Math.max(0, ...spans.map(([from, to]) => to - from - pulse.longest(from, to)));
  return { times, heldUpMs };
}
/** Of the server that hangs, as shown last. */
let breaker: { state: string; stats: { timeouts: number } } | undefined;

const share = (taken: readonly number[] = [], part: number): number => taken[Math.floor(taken.length * part)] ?? NaN;

function expectFlat(before: Measured, during: Measured): void {
  expect(during.heldUpMs).toBeLessThan(CALL_MS);
  for (const [kind, taken] of during.times) {
    const was = before.times.get(kind);
    const ratio = (part: number) => (share(taken, part) / share(was, part)).toFixed(2);
    const longest = taken.at(-1) ?? NaN;
    const figures = `${kind}: ${taken.length} requests, median × ${ratio(0.5)}, p95 × ${ratio(0.95)}, longest ${longest.toFixed(0)} ms`;
    process.stdout.write(`${figures}\n`);
    expect(share(taken, 0.5), figures).toBeLessThan(Math.max(share(was, 0.5) * MEDIAN_RATIO_MAX, NOISE_MS));
    if (taken.length >= P95_OF_MIN)
      expect(share(taken, 0.95), figures).toBeLessThan(Math.max(share(was, 0.95) * P95_RATIO_MAX, NOISE_MS));
    expect(longest, figures).toBeLessThan(ANSWER_MS_MAX);
  }
}

it('a bore-server that hangs slows no requests, its own only until three calls have failed', async () => {
  const kinds = Object.keys(requests);
  const ofOthers = kinds.filter((kind) => !kind.endsWith('hangs'));
  await measure(ofOthers, (round) => round < 20);
  const before = await measure(kinds, (round) => round < ROUNDS);

  server.signal('SIGSTOP');
  const start = performance.now();
  let failing = true;
  const [meanwhile] = await Promise.all([
    measure(ofOthers, () => failing),
    Promise.all([1, 2, 3].map(() => measure(['settings hangs'], (round) => round < 1))).finally(
      () => (failing = false),
    ),
  ]);
  expect(performance.now() - start).toBeGreaterThan(CALL_MS - 1);
  expectFlat(before, meanwhile);

  // the three, and the probe of the half-open breaker among all these requests
  const deadline = performance.now() + PROBED_MS;
  const after = await measure(kinds, () => (breaker?.stats.timeouts ?? 0) < 4 && performance.now() < deadline);
  expectFlat(before, after);
  expect(breaker).toMatchObject({ state: 'open', stats: { timeouts: 4 } });

  server.signal('SIGCONT');
  await until(
    async () => {
      await measure(['settings hangs', 'stats'], (round) => round < 1);
      return breaker?.state === 'closed';
    },
    'a good probe closes it',
    PROBED_MS,
  );
}, 120_000);
