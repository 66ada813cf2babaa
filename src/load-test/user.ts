import { setTimeout as delay } from 'node:timers/promises';

import { z } from 'zod';

import { Nothing, OpenedTunnel, Tunnel, TunnelPage } from '../cli/api-answers.js';
import { type ApiClient, ApiRefusal } from '../cli/api-client.js';
import type { Login } from './login.js';
import type { Measurements } from './measurements.js';
import { carry, visit } from './wire-client.js';

/** What a user does, and how many of a hundred times. */
const MIX: readonly (readonly [share: number, action: 'list' | 'account' | 'capacity' | 'tunnel'])[] = [
  [35, 'list'],
  [60, 'account'],
  [75, 'capacity'],
  [100, 'tunnel'],
];
const Anything = z.unknown();

export interface UserOptions {
  readonly api: ApiClient;
  readonly login: Login;
  /** Of the local service that its tunnels lead to. */
  readonly localPort: number;
  readonly measurements: Measurements;
}

/**
 * One user at work. Each action is due at a time that was fixed before the test began, whatever became of the one before: when the
 * platform stands still, what is due meanwhile is late from that time on, and is measured from then. A user who waited to be answered
 * before asking again would hide just that (coordinated omission).
 */
export class User {
  /** Open tunnels of this run: one at a time, which every plan allows. */
  tunnel: string | undefined;

  constructor(private readonly options: UserOptions) {}

  /**
   * @param dueAt when it acts first, in the time of `performance.now()`
   * @param paceMs from one action to the next
   */
  async work(dueAt: number, paceMs: number, untilMs: number, signal: AbortSignal): Promise<void> {
    for (let due = dueAt; due < untilMs && !signal.aborted; due += paceMs) {
      const early = due - performance.now();
      if (early > 0) await delay(early, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      await this.act(due, signal);
    }
  }

  private async act(due: number, signal: AbortSignal): Promise<void> {
    const dice = Math.random() * 100;
    const action = MIX.find(([share]) => dice < share)?.[1] ?? 'list';
    const get = (path: string) => this.call(Anything, 'GET', path);
    if (action === 'list')
      await this.measure('GET tunnels', due, signal, () => this.call(TunnelPage, 'GET', 'tunnels'));
    else if (action === 'account') await this.measure('GET auth/me', due, signal, () => get('auth/me'));
    else if (action === 'capacity') await this.measure('GET capacity', due, signal, () => get('capacity'));
    else await this.useTunnel(due, signal);
  }

  /** Opens a tunnel, connects a client, sends a visitor through it, and closes it. Each step is due when the one before is done. */
  private async useTunnel(due: number, signal: AbortSignal): Promise<void> {
    if (this.tunnel !== undefined) {
      // the one before could not be closed, and the plan may allow no other beside it
      await this.measure('DELETE tunnels/:id', due, signal, () => this.closeTunnel());
      if (this.tunnel !== undefined) return;
    }
    const left = new AbortController();
    const tunnel = await this.measure('POST tunnels', due, signal, async () => {
      const opened = await this.call(OpenedTunnel, 'POST', 'tunnels', { localPort: this.options.localPort });
      this.tunnel = opened.id;
      return opened;
    });
    if (!tunnel) return;
    const now = () => performance.now();
    const client = AbortSignal.any([signal, left.signal]);
    const connected = await this.measure('connect a client', now(), signal, async () => {
      await carry(tunnel, this.options.localPort, client);
      return true;
    });
    if (connected) await this.measure('64 KiB there and back', now(), signal, () => visit(tunnel));
    await this.measure('GET tunnels/:id', now(), signal, () => this.call(Tunnel, 'GET', `tunnels/${tunnel.id}`));
    await this.measure('DELETE tunnels/:id', now(), signal, () => this.closeTunnel());
    left.abort();
  }

  /** Closes the tunnel that is open, if one is; when that fails, it is still known, to be tried again. */
  async closeTunnel(): Promise<void> {
    if (this.tunnel === undefined) return;
    await this.call(Nothing, 'DELETE', `tunnels/${this.tunnel}`);
    this.tunnel = undefined;
  }

  logOut(): Promise<void> {
    return this.options.login.end();
  }

  /** When its access token is to be refreshed, that is a part of the request, as it is for real users. */
  private async call<T>(
    answer: z.ZodType<T>,
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    body?: unknown,
  ): Promise<T> {
    const accessToken = await this.options.login.accessToken();
    return this.options.api.call(answer, { method, path, body, accessToken });
  }

  /** What fails is a measurement too; what the end of the test cut off is none. */
  private async measure<T>(
    route: string,
    due: number,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T | undefined> {
    const add = (failure?: string): void => {
      if (!signal.aborted) this.options.measurements.add(route, performance.now() - due, failure);
    };
    try {
      const result = await work();
      add();
      return result;
    } catch (error) {
      add(`${route}: ${reasonOf(error)}`);
      return undefined;
    }
  }
}

/** Few different ones: they are counted. */
function reasonOf(error: unknown): string {
  if (error instanceof ApiRefusal) return error.problem.code;
  return error instanceof Error ? error.message : String(error);
}
