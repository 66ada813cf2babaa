/**
 * Where our code says what it does, for whoever traces it: thin calls on OpenTelemetry's API. While tracing is off they run the
 * work and do nothing else, and no part of its SDK is loaded.
 */
import {
  type Attributes,
  context,
  type Context,
  type Link,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api';

/** What a span is about. Its name and attributes are for everybody who reads traces: no secret, no raw URL, no e-mail, no value. */
export interface SpanDescription {
  /** Of few different ones, such as `POST /api/v1/tunnels`. */
  readonly name: string;
  readonly kind: SpanKind;
  /** Named by OpenTelemetry's semantic conventions; our own begin with `bore.`. */
  readonly attributes: Attributes;
}

/** Set while tracing is on. */
let tracer: Tracer | undefined;

/** From now on spans are made. Called once, before anything is traced. */
export function traceWith(one: Tracer): void {
  tracer = one;
}

/** Whether spans are made; known before the first request, and never changing after. */
export function isTracing(): boolean {
  return tracer !== undefined;
}

/**
 * Does `work` in a span, below the one of the running code, or else the first of a new trace. An error marks the span as failed by the
 * error's name: its message may hold what the caller sent.
 * @param parent instead of the running code's span
 */
export function inSpan<T>(
  description: SpanDescription,
  work: (span: Span | undefined) => Promise<T>,
  parent?: Context,
): Promise<T> {
  if (!tracer) return work(undefined);
  const within = parent ?? recordingContext();
  const span = tracer.startSpan(description.name, description, within);
  return ending(span, () => context.with(trace.setSpan(within, span), work, undefined, span));
}

/** The same for steps that matter only as part of something: without a span that is still open they leave none. */
export function inStep<T>(describe: () => SpanDescription, work: () => Promise<T>): Promise<T> {
  if (!tracer || !trace.getActiveSpan()?.isRecording()) return work();
  return inSpan(describe(), work);
}

/** A span that begins now and that the caller ends; `undefined` where {@link inStep} would leave none. */
export function beginStep(describe: () => SpanDescription): Span | undefined {
  if (!tracer || !trace.getActiveSpan()?.isRecording()) return undefined;
  const { name, ...rest } = describe();
  return tracer.startSpan(name, rest);
}

/**
 * The span of a request that has arrived, which the caller ends.
 * @param given the request's `traceparent`
 * @param trusted whether it is one of ours that asks. The trace of anybody else is only linked to: they must not decide what we
 *   record, nor put their requests into traces of others
 */
export function beginRequest(description: SpanDescription, given: unknown, trusted: boolean): Span | undefined {
  if (!tracer) return undefined;
  const theirs = contextOf(given);
  const caller = trace.getSpanContext(theirs);
  const links: Link[] = caller && !trusted ? [{ context: { ...caller, isRemote: true } }] : [];
  return tracer.startSpan(description.name, { ...description, links }, trusted ? theirs : ROOT_CONTEXT);
}

/** Runs `work` with `span` as the one of the running code. */
export function within<T>(span: Span, work: () => T): T {
  return context.with(trace.setSpan(ROOT_CONTEXT, span), work);
}

/** Ends `span` when `work` is done, as failed if it throws. */
export async function ending<T>(span: Span, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    fail(span, error);
    throw error;
  } finally {
    span.end();
  }
}

/** Marks a span as failed. */
export function fail(span: Span, error: unknown): void {
  span.setAttribute('error.type', error instanceof Error ? error.name : typeof error);
  span.setStatus({ code: SpanStatusCode.ERROR });
}

/** The headers (`traceparent`) by which whoever is called goes on with this trace; none while there is none. */
export function traceHeaders(): Record<string, string> {
  const headers: Record<string, string> = {};
  if (tracer) propagation.inject(context.active(), headers);
  return headers;
}

/** The place in a trace that a `traceparent` names. Nonsense names none. */
export function contextOf(traceparent: unknown): Context {
  if (typeof traceparent !== 'string') return ROOT_CONTEXT;
  return propagation.extract(ROOT_CONTEXT, { traceparent });
}

/** What a log line says of the span of the running code; nothing while there is none. */
export function idsOfSpan(): { traceId?: string; spanId?: string } {
  const found = tracer && trace.getActiveSpan()?.spanContext();
  return found ? { traceId: found.traceId, spanId: found.spanId } : {};
}

/** Without a span that has ended: what a request has left running (a timer, a loop) is no part of it. */
function recordingContext(): Context {
  const active = trace.getActiveSpan();
  return active && !active.isRecording() && isSampled(active) ? ROOT_CONTEXT : context.active();
}

/** A span that is not sampled never records: what happens below it is not sampled either. */
function isSampled(span: Span): boolean {
  return (span.spanContext().traceFlags & 1) === 1;
}

export { type Span, SpanKind };
