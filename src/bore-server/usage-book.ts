import { z } from 'zod';

import { randomUuid } from '../protocol/challenge.js';
import { ConnectionRecord, Report, REPORT_CONNECTIONS_MAX, UsageDelta } from '../protocol/reports.js';
import { RECORDS_MAX } from './limits.js';

/** What a book is kept as while no process has it. */
export const UsageBookState = z.object({
  reporterId: z.guid(),
  /** Of the last report made. */
  sequence: z.int().min(0),
  /** Made, and not acknowledged. */
  pending: Report.optional(),
  usage: z.array(UsageDelta),
  records: z.array(ConnectionRecord),
});
export type UsageBookState = z.infer<typeof UsageBookState>;

/**
 * What crossed this server and is not in the control plane's books yet (G4). Usage is added up by tunnel, so its size is
 * bounded by the tunnels there are; connection records are kept one by one, and the oldest is given up for the newest.
 *
 * One report is under way at a time. It is repeated unchanged until it is acknowledged; what happens meanwhile goes into
 * the next one.
 */
export class UsageBook {
  private readonly reporterId: string;
  private sequence: number;
  private pending: Report | undefined;
  private readonly usage = new Map<string, { bytesIn: number; bytesOut: number; connections: number }>();
  private records: ConnectionRecord[];

  /**
   * When the oldest of what is not acknowledged came in, as `performance.now()` counts: of the report under way, and of what has
   * happened since it was made. What a process before us has left is as old as we are.
   */
  private pendingSince: number | undefined;
  private openSince: number | undefined;

  /** @param onRecordLost called for each record that was given up */
  constructor(
    state: UsageBookState | undefined,
    private readonly onRecordLost: () => void,
  ) {
    this.reporterId = state?.reporterId ?? randomUuid();
    this.sequence = state?.sequence ?? 0;
    this.pending = state?.pending;
    this.records = state?.records ?? [];
    for (const { tunnelId, ...counts } of state?.usage ?? []) this.usage.set(tunnelId, counts);
    if (this.pending) this.pendingSince = performance.now();
    if (this.usage.size > 0 || this.records.length > 0) this.openSince = performance.now();
  }

  /** How much is not acknowledged (records, and tunnels with usage), and how old the oldest of it is; 0: there is none. */
  get waiting(): { readonly count: number; readonly ageSeconds: number } {
    const { usage = [], connections = [] } = this.pending ?? {};
    const since = this.pendingSince ?? this.openSince;
    return {
      count: usage.length + connections.length + this.usage.size + this.records.length,
      ageSeconds: since === undefined ? 0 : (performance.now() - since) / 1000,
    };
  }

  /** Called when {@link isPressing} becomes true. */
  onPressing: () => void = () => undefined;

  /** Whether no report is under way. */
  get isSettled(): boolean {
    return this.pending === undefined;
  }

  /** Whether a report should not wait for the next heartbeat that is due. */
  get isPressing(): boolean {
    return this.records.length >= REPORT_CONNECTIONS_MAX;
  }

  countBytes(tunnelId: string, direction: 'in' | 'out', bytes: number): void {
    const counts = this.of(tunnelId);
    if (direction === 'in') counts.bytesIn += bytes;
    else counts.bytesOut += bytes;
  }

  countConnection(tunnelId: string): void {
    this.of(tunnelId).connections++;
  }

  /**
   * Keeps the record of a connection that has ended. Visitors that were not let in are many when somebody knocks for sport:
   * they take no room that the others may need.
   */
  record(record: ConnectionRecord): void {
    // one that the control plane would refuse would hold up every report behind it
    if (!ConnectionRecord.safeParse(record).success) return this.onRecordLost();
    const wasRefused = record.reason === 'limit' || record.reason === 'denied';
    if (wasRefused && this.records.length >= RECORDS_MAX / 2) return this.onRecordLost();
    if (this.records.length >= RECORDS_MAX) {
      this.records.shift();
      this.onRecordLost();
    }
    this.records.push(record);
    this.openSince ??= performance.now();
    if (this.records.length === REPORT_CONNECTIONS_MAX) this.onPressing();
  }

  /** The report to send now, the same until it is acknowledged; `undefined` when nothing has happened. */
  report(now = Date.now()): Report | undefined {
    if (this.pending || (this.usage.size === 0 && this.records.length === 0)) return this.pending;
    // above every sequence that was ever sent under this id, also by a process whose last state was not kept
    this.sequence = Math.max(this.sequence + 1, now);
    this.pending = {
      reporterId: this.reporterId,
      sequence: this.sequence,
      usage: this.deltas(),
      connections: this.records.slice(0, REPORT_CONNECTIONS_MAX),
    };
    this.usage.clear();
    this.records = this.records.slice(REPORT_CONNECTIONS_MAX);
    this.pendingSince = this.openSince;
    // of what is left the age is not kept one by one: it is younger than that
    if (this.records.length === 0) this.openSince = undefined;
    return this.pending;
  }

  /** The report of this sequence is in the control plane's books. */
  acknowledge(sequence: number): void {
    if (this.pending?.sequence !== sequence) return;
    this.pending = undefined;
    this.pendingSince = undefined;
  }

  state(): UsageBookState {
    return {
      reporterId: this.reporterId,
      sequence: this.sequence,
      ...(this.pending && { pending: this.pending }),
      usage: this.deltas(),
      records: this.records,
    };
  }

  private deltas(): UsageDelta[] {
    return [...this.usage].map(([tunnelId, counts]) => ({ tunnelId, ...counts }));
  }

  private of(tunnelId: string): { bytesIn: number; bytesOut: number; connections: number } {
    const known = this.usage.get(tunnelId);
    if (known) return known;
    const counts = { bytesIn: 0, bytesOut: 0, connections: 0 };
    this.openSince ??= performance.now();
    this.usage.set(tunnelId, counts);
    return counts;
  }
}
