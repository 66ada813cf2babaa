import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';

import type { Api } from './api.js';
import { until } from './until.js';

export interface ReceivedEvent {
  readonly id: string | undefined;
  readonly event: string;
  // JSON of any shape: the assertion that reads it is what checks it
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly data: any;
}

/** A client of Server-Sent Events that follows the letter of the standard, and lets tests look at everything. */
export class EventStream {
  /** Dispatched events, in order. */
  readonly events: ReceivedEvent[] = [];
  /** What a browser would send as `Last-Event-ID` when it connects again. */
  lastEventId: string;
  comments = 0;
  retryMs = 0;
  ended = false;
  readonly status: number;
  private buffered = '';

  private constructor(
    private readonly request: http.ClientRequest,
    readonly response: http.IncomingMessage,
    lastEventId: string,
  ) {
    this.lastEventId = lastEventId;
    this.status = response.statusCode ?? 0;
    const end = () => (this.ended = true);
    response.setEncoding('utf8').on('data', (chunk: string) => this.receive(chunk));
    response.on('end', end).on('close', end).on('error', end);
  }

  /**
   * Connects; resolves with the head of the answer.
   * @param ca whom to trust, where the URL is one of https
   */
  static async open(api: Api, path = '/api/v1/events', lastEventId = '', ca?: string): Promise<EventStream> {
    const headers = { ...api.headers, ...(lastEventId !== '' && { 'last-event-id': lastEventId }) };
    const url = `${api.url}${path}`;
    const options = { headers, agent: false };
    const request = ca === undefined ? http.get(url, options) : https.get(url, { ...options, ca });
    request.on('error', () => undefined);
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.once('response', resolve).once('error', reject);
    });
    return new EventStream(request, response, lastEventId);
  }

  /** Resolves when it has received `count` events in all. */
  async received(count: number, deadlineMs = 10_000): Promise<ReceivedEvent[]> {
    await until(() => this.events.length >= count, `${count} events`, deadlineMs).catch((cause: unknown) => {
      throw new Error(`received ${this.events.length} of ${count}: ${JSON.stringify(this.events.slice(-3))}`, {
        cause,
      });
    });
    return this.events;
  }

  types(): string[] {
    return this.events.map(({ event }) => event);
  }

  close(): void {
    this.request.destroy();
  }

  private receive(chunk: string): void {
    const blocks = (this.buffered + chunk).split('\n\n');
    this.buffered = blocks.pop() ?? '';
    for (const block of blocks) {
      let event = 'message';
      let id: string | undefined;
      const data: string[] = [];
      for (const line of block.split('\n')) {
        const [, field = '', value = ''] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
        if (line.startsWith(':')) this.comments += 1;
        else if (field === 'event') event = value;
        else if (field === 'data') data.push(value);
        else if (field === 'retry') this.retryMs = Number(value);
        else if (field === 'id') this.lastEventId = id = value;
      }
      if (data.length > 0) this.events.push({ id, event, data: JSON.parse(data.join('\n')) });
    }
  }
}

/** Resolves with the body of an answer that is not a stream. */
export async function bodyOf({ response }: EventStream): Promise<string> {
  let text = '';
  response.on('data', (chunk: string) => (text += chunk));
  await once(response, 'end');
  return text;
}
