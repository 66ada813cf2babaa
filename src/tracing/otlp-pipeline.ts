/** OpenTelemetry's SDK: from spans to a collector, over OTLP/HTTP. Loaded only while tracing is on (start-tracing.ts). */
import type { Tracer } from '@opentelemetry/api';
import { setGlobalErrorHandler, W3CTraceContextPropagator } from '@opentelemetry/core';
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider, type SpanExporter } from '@opentelemetry/sdk-trace-node';

import type { TracedService } from './start-tracing.js';
import type { TracingSettings } from './tracing-settings.js';

interface Pipeline {
  readonly tracer: Tracer;
  /** Sends what is waiting. Takes as long as the collector lets it. */
  stop(): Promise<void>;
}

/**
 * Opens it. Nothing here waits for the collector: at most 2,048 spans wait for the next batch (`OTEL_BSP_MAX_QUEUE_SIZE`) and what
 * comes then is dropped; one batch is on its way at a time, for at most 10 s (`OTEL_EXPORTER_OTLP_TIMEOUT`).
 * @param onTrouble hears why spans could not be sent
 */
export async function openPipeline(
  { protocol }: TracingSettings,
  service: TracedService,
  onTrouble: (reason: string) => void,
): Promise<Pipeline> {
  const onFailure = (error: unknown): void => onTrouble(error instanceof Error ? error.message : String(error));
  setGlobalErrorHandler(onFailure);
  const provider = new NodeTracerProvider({
    resource: defaultResource()
      .merge(
        resourceFromAttributes({
          'service.name': service.name,
          'service.version': service.version,
          'service.instance.id': service.instanceId,
        }),
      )
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor(await newExporter(protocol))],
  });
  // no baggage: what callers attach to a trace is not passed on
  provider.register({ propagator: new W3CTraceContextPropagator() });
  return { tracer: provider.getTracer('bore-platform'), stop: () => provider.shutdown().catch(onFailure) };
}

async function newExporter(protocol: TracingSettings['protocol']): Promise<SpanExporter> {
  const { OTLPTraceExporter } = await (protocol === 'http/json'
    ? import('@opentelemetry/exporter-trace-otlp-http')
    : import('@opentelemetry/exporter-trace-otlp-proto'));
  return new OTLPTraceExporter();
}
