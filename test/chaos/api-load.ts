import { randomUUID } from 'node:crypto';

import { z } from 'zod';

import type { Answer, Api } from '../harness/api.js';
import { Outage } from './outage.js';

/** Longer, and a program that uses the API has given up. */
const PATIENCE_MS = 10_000;
/** How long a tunnel of the load stays open. */
const TUNNEL_MS = 1_000;
/** Between the tries of one request that must be answered in the end. */
const RETRY_MS = 250;
/** No fault takes so long; a request that is not answered by then never is. */
const GIVE_UP_MS = 120_000;
/** Errors kept for the report, of each kind of request. */
const REASONS_MAX = 20;

const Opened = z.object({ id: z.string(), port: z.number(), serverId: z.string() });

/** What the load has seen since it began or was read last. */
export interface LoadReport {
  readonly reads: number;
  readonly failedReads: number;
  readonly writes: number;
  readonly failedWrites: number;
  /** The longest time without an answer to reads, and to writes. */
  readonly readOutageMs: number;
  readonly writeOutageMs: number;
  /** The longest that a request took that was answered in the end, of both kinds. */
  readonly slowestMs: number;
  /** Of open tunnels of the load, how many were given a port that another one had. */
  readonly doubledPorts: number;
  /** Some of what went wrong. */
  readonly reasons: readonly string[];
}

/**
 * Requests at a steady rate, whether those before have been answered or not: reads, and tunnels that are opened and
 * deleted. A request fails when its first try does; one that creates or deletes is tried again, under its
 * Idempotency-Key, until it is answered, so that nothing of the load stays open.
 */
export class ApiLoad {
  private readonly timers: NodeJS.Timeout[] = [];
  private readonly underWay = new Set<Promise<void>>();
  private readonly ports = new Map<string, string>();
  private readonly outages = { read: new Outage(), write: new Outage() };
  private counts = noCounts();

  constructor(private readonly api: Api) {}

  /** @param every milliseconds between two of a kind */
  start(every: { readonly read: number; readonly write: number }): void {
    const paths = ['/api/v1/tunnels?limit=20', '/api/v1/tunnels?limit=1', '/api/v1/tunnels?state=active'];
    let next = 0;
    this.repeat(every.read, () => this.read(paths[next++ % paths.length] ?? ''));
    this.repeat(every.write, () => this.openAndDelete());
  }

  /** What has happened since the last call. */
  take(): LoadReport {
    const { counts, outages } = this;
    this.counts = noCounts();
    return { ...counts, readOutageMs: outages.read.take(), writeOutageMs: outages.write.take() };
  }

  /** Whether neither reads nor writes fail any more. */
  get isAnswered(): boolean {
    return this.outages.read.isOver && this.outages.write.isOver;
  }

  /** Resolves when all that was begun is done. */
  async stop(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    await Promise.all(this.underWay);
  }

  private repeat(everyMs: number, request: () => Promise<void>): void {
    this.timers.push(
      setInterval(() => {
        const running: Promise<void> = request().finally(() => this.underWay.delete(running));
        this.underWay.add(running);
      }, everyMs),
    );
  }

  private async read(path: string): Promise<void> {
    this.counts.reads++;
    const failure = await this.once('GET', path);
    if (typeof failure === 'string') this.counts.failedReads++;
  }

  private async openAndDelete(): Promise<void> {
    const key = { 'idempotency-key': randomUUID(), 'content-type': 'application/json' };
    const opened = Opened.parse((await this.write('POST', '/api/v1/tunnels', '{}', key)).body);
    const place = `${opened.serverId}:${opened.port}`;
    if (this.ports.has(place)) this.counts.doubledPorts++;
    this.ports.set(place, opened.id);
    await new Promise((resolve) => setTimeout(resolve, TUNNEL_MS));
    // from here on the port may be another's
    this.ports.delete(place);
    await this.write('DELETE', `/api/v1/tunnels/${opened.id}`);
  }

  /** Until it is answered; counted once. */
  private async write(
    method: string,
    path: string,
    body?: string,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    this.counts.writes++;
    const giveUpAt = performance.now() + GIVE_UP_MS;
    for (let tries = 1; ; tries++) {
      const answer = await this.once(method, path, body, headers);
      if (typeof answer !== 'string') return answer;
      if (tries === 1) this.counts.failedWrites++;
      if (performance.now() > giveUpAt) throw new Error(`${method} ${path} was never answered: ${answer}`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** The answer, or why there is none. */
  private async once(
    method: string,
    path: string,
    body?: string,
    headers: Record<string, string> = {},
  ): Promise<Answer | string> {
    const startedAt = performance.now();
    const outage = this.outages[method === 'GET' ? 'read' : 'write'];
    const answer = await this.api
      .send(method, path, body, headers, AbortSignal.timeout(PATIENCE_MS))
      .catch((error: unknown) => causesOf(error));
    // not there: deleted by a try before, whose answer was lost
    if (typeof answer !== 'string' && (answer.status < 400 || (method === 'DELETE' && answer.status === 404))) {
      outage.worked(startedAt);
      this.counts.slowestMs = Math.max(this.counts.slowestMs, performance.now() - startedAt);
      return answer;
    }
    outage.failed(startedAt);
    const failure = typeof answer === 'string' ? answer : `${answer.status} ${answer.text.slice(0, 200)}`;
    if (this.counts.reasons.length < REASONS_MAX) this.counts.reasons.push(`${method} ${path}: ${failure}`);
    return failure;
  }
}

/** fetch says only that it failed; why, says the cause. */
function causesOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${causesOf(error.cause)}`;
}

const noCounts = () => ({
  reads: 0,
  failedReads: 0,
  writes: 0,
  failedWrites: 0,
  slowestMs: 0,
  doubledPorts: 0,
  reasons: new Array<string>(),
});
