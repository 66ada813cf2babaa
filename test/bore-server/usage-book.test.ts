import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { RECORDS_MAX } from '../../src/bore-server/limits.js';
import { UsageBook, UsageBookState } from '../../src/bore-server/usage-book.js';
import { randomUuid } from '../../src/protocol/challenge.js';
import { type ConnectionRecord, type Report, REPORT_CONNECTIONS_MAX } from '../../src/protocol/reports.js';

const TUNNELS = [randomUuid(), randomUuid()];

function record(reason: ConnectionRecord['reason'] = 'visitor_closed'): ConnectionRecord {
  const at = '2026-01-01T00:00:00.000Z';
  return {
    id: randomUuid(),
    tunnelId: TUNNELS[0] ?? '',
    visitorAddress: '192.0.2.1',
    visitorPort: 1,
    startedAt: at,
    endedAt: at,
    setupMs: 1,
    bytesIn: 1,
    bytesOut: 2,
    reason,
  };
}

/** The control plane's books, as its database keeps them. */
class Ledger {
  readonly bytes = new Map<string, number>();
  readonly records = new Set<string>();
  private readonly sequences = new Map<string, number>();

  apply({ reporterId, sequence, usage, connections }: Report): void {
    if (sequence <= (this.sequences.get(reporterId) ?? 0)) return;
    this.sequences.set(reporterId, sequence);
    for (const { tunnelId, bytesIn, bytesOut } of usage) {
      this.bytes.set(tunnelId, (this.bytes.get(tunnelId) ?? 0) + bytesIn + bytesOut);
    }
    for (const { id } of connections) this.records.add(id);
  }
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('bytes' as const), tunnel: fc.nat(1), bytes: fc.nat(1e9) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('record', 'send', 'send, answer lost', 'send, lost', 'late repeat', 'restart', 'killed'),
    }),
  },
);

describe('the book of usage', () => {
  it('is counted once in any history of lost reports, lost answers, repeats and restarts (G4)', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const ledger = new Ledger();
        const carried = new Map<string, number>();
        const records = new Set<string>();
        const sent: Report[] = [];
        let book = new UsageBook(undefined, () => undefined);
        let kept: string | undefined;
        let clock = 1_000;
        const report = (): Report | undefined => {
          const isNew = book.isSettled;
          const next = book.report(clock);
          // as the process does it: kept before it is sent
          if (next && isNew) kept = JSON.stringify(book.state());
          if (next) sent.push(next);
          return next;
        };
        for (const action of steps) {
          clock += 1;
          if ('bytes' in action) {
            const tunnel = TUNNELS[action.tunnel] ?? '';
            book.countBytes(tunnel, 'in', action.bytes);
            carried.set(tunnel, (carried.get(tunnel) ?? 0) + action.bytes);
            // for `killed`: what is not kept is lost with the process, so keep all of it
            kept = JSON.stringify(book.state());
          } else if (action.do === 'record') {
            const one = record();
            book.record(one);
            records.add(one.id);
            kept = JSON.stringify(book.state());
          } else if (action.do === 'send') {
            const next = report();
            if (next) {
              ledger.apply(next);
              book.acknowledge(next.sequence);
            }
          } else if (action.do === 'send, answer lost') {
            const next = report();
            if (next) ledger.apply(next);
          } else if (action.do === 'send, lost') {
            report();
          } else if (action.do === 'late repeat') {
            for (const old of sent) ledger.apply(old);
          } else {
            const state = action.do === 'restart' ? JSON.stringify(book.state()) : kept;
            book = new UsageBook(
              state === undefined ? undefined : UsageBookState.parse(JSON.parse(state)),
              () => undefined,
            );
            if (state === undefined) {
              carried.clear();
              records.clear();
            }
          }
        }
        for (let next = report(); next; next = report()) {
          ledger.apply(next);
          book.acknowledge(next.sequence);
          clock += 1;
        }
        for (const tunnel of TUNNELS) expect(ledger.bytes.get(tunnel) ?? 0).toBe(carried.get(tunnel) ?? 0);
        expect([...ledger.records].sort()).toEqual([...records].sort());
      }),
      { numRuns: 500 },
    );
  });

  it('takes no record that the control plane would refuse, and hold up every report behind it', () => {
    let lost = 0;
    const book = new UsageBook(undefined, () => lost++);
    for (const visitorAddress of ['', 'fe80::1%eth0', 'x\0']) book.record({ ...record(), visitorAddress });
    expect(lost).toBe(3);
    expect(book.report()).toBeUndefined();
  });

  it('sends at most so many records at a time, and the rest behind them', () => {
    const book = new UsageBook(undefined, () => undefined);
    let pressed = 0;
    book.onPressing = () => pressed++;
    for (let i = 0; i < REPORT_CONNECTIONS_MAX + 5; i++) book.record(record());
    expect(pressed).toBe(1);
    const first = book.report();
    expect(first?.connections).toHaveLength(REPORT_CONNECTIONS_MAX);
    expect(book.report()).toBe(first);
    book.acknowledge(first?.sequence ?? 0);
    expect(book.report()?.connections).toHaveLength(5);
  });

  it('holds so many records and no more; knocks that were refused take half of the room at most', () => {
    let lost = 0;
    const book = new UsageBook(undefined, () => lost++);
    for (let i = 0; i < RECORDS_MAX; i++) book.record(record('limit'));
    expect(lost).toBe(RECORDS_MAX / 2);
    for (let i = 0; i < RECORDS_MAX; i++) book.record(record());
    expect(lost).toBe(RECORDS_MAX);
    expect(book.state().records).toHaveLength(RECORDS_MAX);
    expect(book.state().records.every(({ reason }) => reason === 'visitor_closed')).toBe(true);
  });
});
