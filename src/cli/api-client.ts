import { z } from 'zod';

import { Problem } from './api-answers.js';
import { Failure } from './failure.js';
import { ANSWER_BYTES_MAX, REQUEST_MS } from './limits.js';
import { networkReason } from './network-error.js';

/** The API understood the request and refuses it. */
export class ApiRefusal extends Failure {
  override readonly name = 'ApiRefusal';

  constructor(readonly problem: Problem) {
    super(sentenceOf(problem));
  }
}

/** The API does not answer, or what answers is not the API. */
export class ApiUnavailable extends Failure {
  override readonly name = 'ApiUnavailable';
}

interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Below `/api/v1/`. */
  readonly path: string;
  readonly body?: unknown;
  readonly accessToken?: string;
}

/** One platform's API. */
export class ApiClient {
  /** @param url of the platform, without a slash at the end */
  constructor(readonly url: string) {}

  /**
   * Sends one request and checks its answer against `answer`.
   * @throws ApiRefusal, ApiUnavailable
   */
  async call<T>(answer: z.ZodType<T>, { method, path, body, accessToken }: ApiRequest): Promise<T> {
    let status: number;
    let text: string;
    try {
      const response = await fetch(`${this.url}/api/v1/${path}`, {
        method,
        headers: {
          accept: 'application/json, application/problem+json',
          ...(accessToken !== undefined && { authorization: `Bearer ${accessToken}` }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        // a password must not follow a redirect to somewhere else
        redirect: 'manual',
        signal: AbortSignal.timeout(REQUEST_MS),
      });
      status = response.status;
      text = await readText(response);
    } catch (cause) {
      throw new ApiUnavailable(`The platform at ${this.url} cannot be reached: ${networkReason(cause)}.`, 1, { cause });
    }
    const json = parseJson(text);
    if (status >= 200 && status < 300) {
      const parsed = answer.safeParse(json);
      if (parsed.success) return parsed.data;
      throw new ApiUnavailable(
        `What answers at ${this.url} is not this platform’s API, or a version that this borectl does not understand.`,
      );
    }
    const problem = Problem.safeParse(json);
    if (problem.success) throw new ApiRefusal(problem.data);
    throw new ApiUnavailable(`The platform at ${this.url} answered with HTTP status ${status} and no reason.`);
  }
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) throw new Error('its answer is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parseJson(text: string): unknown {
  try {
    return text === '' ? undefined : JSON.parse(text);
  } catch {
    return null; // neither an answer nor a problem document of ours: the caller says so
  }
}

function sentenceOf({ detail, code, errors, retryAfter }: Problem): string {
  const where = (errors ?? []).map(({ path, message }) => `${path}: ${message}`).join('; ');
  const hint = retryAfter === undefined ? '' : `, try again in ${retryAfter} s`;
  return `${detail.replace(/\.$/, '')}${where && ` (${where})`} [${code}]${hint}.`;
}
