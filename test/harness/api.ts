/** An answer of the API. `body` is the parsed JSON, or `null` when there is none. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // JSON of any shape: the assertion that reads it is what checks it
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
}

/** A small HTTP client that shows answers as they are, errors included. */
export class Api {
  constructor(
    readonly url: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {}

  withToken(token: string): Api {
    return new Api(this.url, { ...this.headers, authorization: `Bearer ${token}` });
  }

  /** The same caller, at another backend. */
  at(url: string): Api {
    return new Api(url, this.headers);
  }

  get(path: string): Promise<Answer> {
    return this.send('GET', path);
  }

  delete(path: string): Promise<Answer> {
    return this.send('DELETE', path);
  }

  post(path: string, body: unknown): Promise<Answer> {
    if (body === undefined) return this.send('POST', path);
    return this.send('POST', path, JSON.stringify(body), { 'content-type': 'application/json' });
  }

  patch(path: string, body: unknown): Promise<Answer> {
    return this.send('PATCH', path, JSON.stringify(body), { 'content-type': 'application/json' });
  }

  /** @param signal gives up */
  async send(
    method: string,
    path: string,
    body?: string,
    headers: Record<string, string> = {},
    signal: AbortSignal | null = null,
  ): Promise<Answer> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      signal,
      headers: { ...this.headers, ...headers },
      ...(body !== undefined && { body }),
    });
    const type = response.headers.get('content-type') ?? '';
    // a stream has no end of its own: its head is the answer
    const isStream = type.startsWith('text/event-stream');
    if (isStream) await response.body?.cancel();
    const text = isStream ? '' : await response.text();
    const json = /[/+]json/.test(type);
    const parsed = json ? JSON.parse(text) : isStream ? text : null;
    return { status: response.status, headers: response.headers, text, body: parsed };
  }
}
