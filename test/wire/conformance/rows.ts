/**
 * How a stream behaves, row by row: what one end does, and what is seen for it at the other end of the tunnel. The
 * words of the outcomes are verdicts:
 *
 * - `whole`: every byte, and then the end
 * - `reset`: told that it is broken, so that nobody takes what came for everything
 * - `cut`: bytes are missing of what was sent and finished
 * - `hidden`: it broke, and looks finished all the same
 * - `open`: not told anything within {@link PATIENCE_MS}
 * - `never came`: the visitor was gone before anything reached the service
 */
export type Verdict = 'whole' | 'reset' | 'cut' | 'hidden' | 'open' | 'never came';

/** Nobody is left waiting longer for the news that the other end is gone: `GONE_MS` at the server, and again at borectl. */
export const PATIENCE_MS = 12_000;

/** Less than one read takes. */
export const FEW_BYTES = 1_000;
export const FLIGHT_BYTES = 64 * 1024;
/** More than all buffers on the way hold. */
export const BIG_BYTES = 48 * 1024 * 1024;

export interface Row {
  readonly who: 'visitor' | 'service';
  readonly does: 'half-closes' | 'closes' | 'resets' | 'refuses';
  /** Said right before, and what of it was read. `big`: the other does not read until the act is done. */
  readonly with: 'nothing' | 'bytes in flight' | 'big, unread by the other' | 'bytes of the other unread';
  /** Before the client has fetched the visitor, or when the stream runs. */
  readonly when: 'carried' | 'before Accept';
  /**
   * What the other end does once it has seen the outcome. `half an answer, then a reset`: the answer is judged at
   * the first end. `sends on`: it had been sending without end, and the first end, after its half-close, goes.
   */
  readonly afterwards?: 'answers' | 'answers big' | 'half an answer, then a reset' | 'sends on';
  /** Played so often, where a race decides. */
  readonly times?: number;
  /** At our server, with whichever client. */
  readonly expected: readonly Verdict[];
  /** Where upstream's client makes something else of it, at our server too. */
  readonly stockClient?: readonly Verdict[];
  /** Where upstream's server does, with whichever client. */
  readonly upstreamServer?: readonly Verdict[];
}

const idle = { with: 'nothing', when: 'carried' } as const;
const flying = { with: 'bytes in flight', when: 'carried' } as const;
const big = { with: 'big, unread by the other', when: 'carried' } as const;
const unread = { with: 'bytes of the other unread', when: 'carried' } as const;
const early = { with: 'bytes in flight', when: 'before Accept' } as const;

/** What upstream's programs do with a reset: they end both connections, and the other looks finished. */
const lost = { stockClient: ['hidden'], upstreamServer: ['hidden'] } as const;

/** The same of a visitor that is gone before it is fetched: the client may hear of it before it has dialled its service. */
const lostEarly = { stockClient: ['hidden', 'never came'], upstreamServer: ['hidden', 'never came'] } as const;

const both = (row: Omit<Row, 'who'>): Row[] => [
  { who: 'visitor', ...row },
  { who: 'service', ...row },
];

export const ROWS: readonly Row[] = [
  ...both({ does: 'closes', ...idle, expected: ['whole'] }),
  ...both({ does: 'closes', ...flying, expected: ['whole'] }),
  ...both({ does: 'closes', ...big, expected: ['whole'] }),
  ...both({ does: 'closes', ...unread, expected: ['reset'], ...lost }),
  ...both({ does: 'half-closes', ...idle, afterwards: 'answers', expected: ['whole'] }),
  ...both({ does: 'half-closes', ...flying, afterwards: 'answers', expected: ['whole'] }),
  ...both({ does: 'half-closes', ...big, afterwards: 'answers', expected: ['whole'] }),
  ...both({ does: 'half-closes', ...flying, afterwards: 'answers big', expected: ['whole'] }),
  ...both({
    does: 'half-closes',
    ...flying,
    afterwards: 'half an answer, then a reset',
    times: 20,
    expected: ['reset'],
    ...lost,
  }),
  ...both({ does: 'half-closes', ...flying, afterwards: 'sends on', expected: ['reset'] }),
  ...both({ does: 'resets', ...idle, times: 20, expected: ['reset'], ...lost }),
  ...both({ does: 'resets', ...flying, times: 20, expected: ['reset'], ...lost }),
  ...both({ does: 'resets', ...big, expected: ['reset'], ...lost }),
  { who: 'service', does: 'refuses', ...idle, expected: ['whole'] },
  { who: 'visitor', does: 'closes', ...early, expected: ['whole'] },
  { who: 'visitor', does: 'half-closes', ...early, afterwards: 'answers', expected: ['whole'] },
  {
    who: 'visitor',
    does: 'half-closes',
    with: 'nothing',
    when: 'before Accept',
    afterwards: 'answers',
    expected: ['whole'],
  },
  { who: 'visitor', does: 'resets', ...early, expected: ['reset', 'never came'], ...lostEarly },
  {
    who: 'visitor',
    does: 'resets',
    with: 'nothing',
    when: 'before Accept',
    expected: ['reset', 'never came'],
    ...lostEarly,
  },
];

export function nameOf({ who, does, with: withWhat, when, afterwards }: Row): string {
  return `${who} ${does}, ${withWhat}, ${when}${afterwards ? `; the other ${afterwards}` : ''}`;
}

/** Whether the act, or the answer to it, broke the stream: nobody may take it for finished. */
export function breaks({ does, with: withWhat, afterwards }: Row): boolean {
  return does === 'resets' || withWhat === 'bytes of the other unread' || afterwards === 'half an answer, then a reset';
}
