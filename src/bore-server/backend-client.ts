import { z } from 'zod';

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

/** Calls the control plane (src/protocol/plane-api.ts). Every call has a time limit and throws as said above. */
export class BackendClient {
  constructor(
    private readonly url: string,
    private readonly apiKey: string,
  ) {}

  register(request: RegisterRequest, timeoutMs: number): Promise<RegisterResponse> {
    return this.post('/servers/register', request, RegisterResponse, timeoutMs);
  }

  heartbeat(serverId: string, request: HeartbeatRequest, timeoutMs: number): Promise<HeartbeatResponse> {
    return this.post(`/servers/${encodeURIComponent(serverId)}/heartbeat`, request, HeartbeatResponse, timeoutMs);
  }

  authorize(request: AuthorizeRequest, timeoutMs: number): Promise<Grant> {
    return this.post('/tunnels/authorize', request, Grant, timeoutMs);
  }

  locate(request: LocateRequest, timeoutMs: number): Promise<LocateResponse> {
    return this.post('/tunnels/locate', request, LocateResponse, timeoutMs);
  }

  private async post<T>(path: string, body: unknown, answer: z.ZodType<T>, timeoutMs: number): Promise<T> {
    let response: Response;
    let json: unknown;
    try {
      response = await fetch(new URL(INTERNAL_PREFIX + path, this.url), {
        method: 'POST',
        headers: { 'content-type': 'application/json', [INTERNAL_KEY_HEADER]: this.apiKey },
        body: JSON.stringify(body),
        redirect: 'error',
        signal: AbortSignal.timeout(timeoutMs),
      });
      json = await response.json();
    } catch (cause) {
      throw new BackendUnavailable(
        `backend cannot be asked: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      );
    }
    if (!response.ok) {
      const problem = Problem.safeParse(json);
      if (problem.success) throw new PlaneRefusal(problem.data.code);
      throw new BackendUnavailable(`backend answered ${response.status}`);
    }
    const parsed = answer.safeParse(json);
    if (!parsed.success) throw new BackendUnavailable('backend answered something unknown', { cause: parsed.error });
    return parsed.data;
  }
}
