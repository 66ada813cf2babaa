import { until } from '../../harness/until.js';
import type { StreamPath } from './paths.js';
import { BIG_BYTES, breaks, FEW_BYTES, FLIGHT_BYTES, PATIENCE_MS, type Row, type Verdict } from './rows.js';
import { Witness } from './witness.js';

/** What came of a row, and how long after the act it was known. */
export interface Result {
  readonly verdict: Verdict;
  readonly ms: number;
}

/** Until a client has fetched a visitor. */
const FETCH_MS = 3_000;

/** Plays one row on a path, or as often as a race needs to show; the first result that nobody expects is the result. */
export async function play(row: Row, path: StreamPath, expected: readonly Verdict[]): Promise<Result> {
  let result = await playOnce(row, path);
  for (let i = 1; i < (row.times ?? 1) && expected.includes(result.verdict); i++) result = await playOnce(row, path);
  return result;
}

async function playOnce(row: Row, path: StreamPath): Promise<Result> {
  if (row.does === 'refuses') return playRefusal(path);
  const visitor = new Witness(await path.visit());
  let service: Witness | undefined;
  try {
    if (row.when === 'carried') {
      service = await served(path);
      if (!service) throw new Error('the visitor was not fetched');
      await greet(visitor, service);
      const [actor, other] = row.who === 'visitor' ? [visitor, service] : [service, visitor];
      return await playCarried(row, actor, other);
    }
    if (row.with !== 'nothing' && row.does !== 'resets') visitor.send(FLIGHT_BYTES);
    await visitor.flushed();
    const actedAt = performance.now();
    await act(row, visitor);
    service = await served(path);
    if (!service) return { verdict: 'never came', ms: performance.now() - actedAt };
    return await watch(row, visitor, service, actedAt);
  } finally {
    for (const witness of [visitor, service]) witness?.socket.destroy();
  }
}

/** A byte each way: the stream is there, whatever its client does first. */
async function greet(visitor: Witness, service: Witness): Promise<void> {
  visitor.send(1);
  service.send(1);
  await Promise.all([visitor.hears(1), service.hears(1)]);
}

async function playCarried(row: Row, actor: Witness, other: Witness): Promise<Result> {
  if (row.afterwards === 'sends on') return playSendsOn(actor, other);
  if (row.with === 'bytes in flight' && row.does !== 'resets') actor.send(FLIGHT_BYTES);
  if (row.with === 'big, unread by the other') {
    other.stopReading();
    actor.send(BIG_BYTES);
    await actor.stalled();
  }
  if (row.with === 'bytes of the other unread') {
    actor.stopReading();
    // more than Node reads ahead, so that some of it is with the kernel when it closes
    other.send(16 * FLIGHT_BYTES);
    await other.flushed();
    await until(() => actor.socket.readableLength > 0, 'it has arrived');
    // and what carries it is not in the middle of copying: it would break off for a reason of its own
    await other.stalled();
  }
  await (row.with === 'bytes in flight' && actor.flushed());
  const actedAt = performance.now();
  const acted = act(row, actor);
  const result = await watch(row, actor, other, actedAt);
  await acted;
  return result;
}

function act({ does, with: withWhat }: Row, actor: Witness): Promise<void> {
  if (does === 'closes') return actor.close();
  if (does === 'half-closes') return actor.halfClose();
  actor.reset(withWhat === 'bytes in flight' ? FEW_BYTES : 0);
  return Promise.resolve();
}

/** Watches the other end, and what it does then. */
async function watch(row: Row, actor: Witness, other: Witness, actedAt: number): Promise<Result> {
  const { afterwards } = row;
  await other.ends(PATIENCE_MS);
  const first = { verdict: verdictOf(actor, other), ms: other.endedAt - actedAt };
  if (!afterwards || first.verdict !== 'whole') return breaks(row) ? hidden(first) : first;
  const answeredAt = performance.now();
  if (afterwards === 'half an answer, then a reset') {
    other.reset(FEW_BYTES);
  } else {
    other.send(afterwards === 'answers big' ? BIG_BYTES : FLIGHT_BYTES);
    await other.halfClose();
  }
  await actor.ends(PATIENCE_MS);
  const second = { verdict: verdictOf(other, actor), ms: actor.endedAt - answeredAt };
  return breaks(row) ? hidden(second) : second;
}

/** What looks whole or cut, of a stream that was broken. */
function hidden({ verdict, ms }: Result): Result {
  return { verdict: verdict === 'whole' || verdict === 'cut' ? 'hidden' : verdict, ms };
}

/** The actor finishes, hears some of what the other sends without end, and goes: how does the other learn of it? */
async function playSendsOn(actor: Witness, other: Witness): Promise<Result> {
  await actor.halfClose();
  await other.ends(PATIENCE_MS);
  if (other.end !== 'finished') return { verdict: verdictOf(actor, other), ms: 0 };
  let goesOn = true;
  const sending = (async () => {
    while (goesOn && other.socket.writable) {
      other.send(FLIGHT_BYTES);
      await other.flushed();
    }
  })();
  await actor.hears(4 * FLIGHT_BYTES);
  const actedAt = performance.now();
  await actor.close();
  await until(() => other.socket.destroyed || performance.now() - actedAt > PATIENCE_MS, 'patience', 2 * PATIENCE_MS);
  const told = other.socket.destroyed;
  goesOn = false;
  other.socket.destroy();
  await sending;
  return { verdict: told ? 'reset' : 'open', ms: performance.now() - actedAt };
}

async function playRefusal(path: StreamPath): Promise<Result> {
  await path.refuse();
  const visitor = new Witness(await path.visit());
  const actedAt = performance.now();
  await visitor.ends(PATIENCE_MS);
  visitor.socket.destroy();
  await path.acceptAgain();
  const { end } = visitor;
  return { verdict: end === 'finished' ? 'whole' : end, ms: visitor.endedAt - actedAt };
}

async function served(path: StreamPath): Promise<Witness | undefined> {
  const socket = await path.serve(FETCH_MS);
  return socket && new Witness(socket);
}

function verdictOf(sender: Witness, receiver: Witness): Verdict {
  if (!receiver.intact) throw new Error('bytes were changed, lost or doubled in the middle of a stream');
  if (receiver.end === 'open') return 'open';
  if (receiver.end === 'reset') return 'reset';
  return receiver.received === sender.sent ? 'whole' : 'cut';
}
