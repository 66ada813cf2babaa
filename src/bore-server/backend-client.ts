import type { Logger } from 'pino';
import { z } from 'zod';

import { randomUuid } from '../protocol/challenge.js';
import { type LocateRequest, LocateResponse } from '../protocol/locate.js';
import {
  type AuthorizeRequest,
  Grant,
  type HeartbeatRequest,
  HeartbeatResponse,
  INTERNAL_KEY_HEADER,
  INTERNAL_PREFIX,
  type RegisterRequest,
  RegisterResponse,
} from '../protocol/plane-api.js';
import { PlaneErrorCode } from '../protocol/plane-errors.js';
import { REQUEST_ID_HEADER } from '../protocol/request-id.js';
import { inSpan, SpanKind, traceHeaders } from '../tracing/spans.js';

/** A refusal that the backend meant ({@link PlaneErrorCode}). */
export class PlaneRefusal extends Error {
  override readonly name = 'PlaneRefusal';

  constructor(readonly code: PlaneErrorCode) {
    super(code);
  }
}

/** The backend is not there now, or does not understand us: anything but an answer or a {@link PlaneRefusal}. */
export class BackendUnavailable extends Error {
  override readonly name = 'BackendUnavailable';
}

const Problem = z.object({ code: PlaneErrorCode });

type Call = 'register' | 'heartbeat' | 'authorize' | 'locate';

/** Calls the control plane (src/protocol/plane-api.ts). Every call has a time limit and throws as said above. */
export class BackendClient {
  constructor(
    private readonly url: string,
    private readonly apiKey: string,
    private readonly logger: Logger,
  ) {}

  register(request: RegisterRequest, timeoutMs: number): Promise<RegisterResponse> {
    return this.post('register', '/servers/register', request, RegisterResponse, timeoutMs);
  }

  heartbeat(serverId: string, request: HeartbeatRequest, timeoutMs: number): Promise<HeartbeatResponse> {
    const path = `/servers/${encodeURIComponent(serverId)}/heartbeat`;
    return this.post('heartbeat', path, request, HeartbeatResponse, timeoutMs, '/servers/{id}/heartbeat');
  }

  authorize(request: AuthorizeRequest, timeoutMs: number): Promise<Grant> {
    return this.post('authorize', '/tunnels/authorize', request, Grant, timeoutMs);
  }

  locate(request: LocateRequest, timeoutMs: number): Promise<LocateResponse> {
    return this.post('locate', '/tunnels/locate', request, LocateResponse, timeoutMs);
  }

  /** @param template the path as traces name it */
  private post<T>(
    call: Call,
    path: string,
    body: unknown,
    answer: z.ZodType<T>,
    timeoutMs: number,
    template = path,
  ): Promise<T> {
    const name = `POST ${INTERNAL_PREFIX}${template}`;
    const attributes = { 'http.request.method': 'POST', 'url.template': INTERNAL_PREFIX + template };
    return inSpan({ name, kind: SpanKind.CLIENT, attributes }, () => this.ask(call, path, body, answer, timeoutMs));
  }

  private async ask<T>(call: Call, path: string, body: unknown, answer: z.ZodType<T>, timeoutMs: number): Promise<T> {
    const requestId = randomUuid();
    const began = performance.now();
    let response: Response | undefined;
    try {
      response = await this.send(path, body, requestId, timeoutMs);
      return await parsed(response, answer);
    } finally {
      // a heartbeat every few seconds says nothing; what fails is told of by whoever asked
      this.logger[call === 'heartbeat' ? 'debug' : 'info'](
        { call, requestId, status: response?.status, durationMs: Math.round((performance.now() - began) * 10) / 10 },
        'control plane asked',
      );
    }
  }

  private async send(path: string, body: unknown, requestId: string, timeoutMs: number): Promise<Response> {
    try {
      return await fetch(new URL(INTERNAL_PREFIX + path, this.url), {
        method: 'POST',
        headers: {
          ...traceHeaders(),
          'content-type': 'application/json',
          [INTERNAL_KEY_HEADER]: this.apiKey,
          [REQUEST_ID_HEADER]: requestId,
        },
        body: JSON.stringify(body),
        redirect: 'error',
        signal: AbortSignal.timeout(timeoutMs),
      });
    } catch (cause) {
      throw unavailable(cause);
    }
  }
}

/** @throws PlaneRefusal, BackendUnavailable */
async function parsed<T>(response: Response, answer: z.ZodType<T>): Promise<T> {
  const json: unknown = await response.json().catch((cause: unknown) => {
    throw unavailable(cause);
  });
  if (!response.ok) {
    const problem = Problem.safeParse(json);
    if (problem.success) throw new PlaneRefusal(problem.data.code);
    throw new BackendUnavailable(`backend answered ${response.status}`);
  }
  const understood = answer.safeParse(json);
  if (!understood.success)
    throw new BackendUnavailable('backend answered something unknown', { cause: understood.error });
  return understood.data;
}

function unavailable(cause: unknown): BackendUnavailable {
  return new BackendUnavailable(`backend cannot be asked: ${cause instanceof Error ? cause.message : String(cause)}`, {
    cause,
  });
}
