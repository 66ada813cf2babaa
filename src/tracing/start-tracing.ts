import { idsOfSpan, traceWith } from './spans.js';
import { readTracingSettings } from './tracing-settings.js';

/** Who sends traces, as a collector shows it; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win. */
export interface TracedService {
  readonly name: string;
  readonly version: string;
  /** Which of several of that name. */
  readonly instanceId: string;
}

/** Tracing that is on. */
export interface Tracing {
  /** Tells of trouble with the collector from now on, at most once a minute. */
  reportTo(logger: { warn(fields: object, message: string): void }): void;
  /** What log lines say of the span of the running code. */
  readonly idsOfSpan: typeof idsOfSpan;
  /** Sends what is waiting, for at most 3 s. */
  stop(): Promise<void>;
}

/** What stopping waits for a collector; the rest of it is lost. Together with drain and close, below the 30 s of Kubernetes. */
const FLUSH_TIMEOUT_MS = 3_000;
/** A collector that is away fails every batch; one line a minute tells of it. */
const TROUBLE_INTERVAL_MS = 60_000;
/** A collector's error page is not for our log. */
const REASON_CHARS_MAX = 200;

/**
 * Turns tracing on where the environment says so, before anything is traced. The SDK is loaded here and only then.
 * @returns `undefined`: it is off
 * @throws TracingSettingsError
 */
export async function startTracing(
  environment: NodeJS.ProcessEnv,
  service: TracedService,
): Promise<Tracing | undefined> {
  const settings = readTracingSettings(environment);
  if (!settings) return undefined;
  const { openPipeline } = await import('./otlp-pipeline.js');
  let report: (reason: string) => void = () => undefined;
  const pipeline = await openPipeline(settings, service, (reason) => report(reason));
  traceWith(pipeline.tracer);
  let nextReportAt = 0;
  return {
    idsOfSpan,
    reportTo: (logger) => {
      report = (reason) => {
        if (Date.now() < nextReportAt) return;
        nextReportAt = Date.now() + TROUBLE_INTERVAL_MS;
        logger.warn({ reason: reason.slice(0, REASON_CHARS_MAX) }, 'traces could not be sent');
      };
    },
    stop: async () => {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, FLUSH_TIMEOUT_MS)));
      await Promise.race([pipeline.stop(), late]);
      clearTimeout(timer);
    },
  };
}
