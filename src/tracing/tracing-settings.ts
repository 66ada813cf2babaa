import { z } from 'zod';

/** A variable of tracing is wrong; the message names it, and never its value. */
export class TracingSettingsError extends Error {
  override readonly name = 'TracingSettingsError';
}

const url = z.url({ protocol: /^https?$/, error: 'must be a URL that begins with http:// or https://' });
const protocol = z.enum(['http/protobuf', 'http/json'], {
  error: 'must be http/protobuf or http/json: OTLP over gRPC is not spoken',
});

/** The variables of OpenTelemetry that decide whether and how; the SDK reads the others by itself. */
const Variables = z.object({
  OTEL_SDK_DISABLED: z.string().optional(),
  OTEL_TRACES_EXPORTER: z.enum(['otlp', 'none'], { error: 'must be otlp or none' }).optional(),
  OTEL_EXPORTER_OTLP_ENDPOINT: url.optional(),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url.optional(),
  OTEL_EXPORTER_OTLP_PROTOCOL: protocol.optional(),
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: protocol.optional(),
  OTEL_TRACES_SAMPLER: z
    .enum(
      [
        'always_on',
        'always_off',
        'traceidratio',
        'parentbased_always_on',
        'parentbased_always_off',
        'parentbased_traceidratio',
      ],
      { error: 'is no sampler of OpenTelemetry' },
    )
    .optional(),
  OTEL_TRACES_SAMPLER_ARG: z.coerce.number({ error: 'must be a number from 0 to 1' }).min(0).max(1).optional(),
});

/** How traces are sent. */
export interface TracingSettings {
  readonly protocol: z.infer<typeof protocol>;
}

/**
 * Whether traces are sent, and how: by OpenTelemetry's own variables. An endpoint, or `OTEL_TRACES_EXPORTER=otlp`, turns them on;
 * `OTEL_SDK_DISABLED=true` and `OTEL_TRACES_EXPORTER=none` win. An empty variable counts as not set.
 * @returns `undefined`: tracing is off
 * @throws TracingSettingsError
 */
export function readTracingSettings(environment: NodeJS.ProcessEnv): TracingSettings | undefined {
  const present = Object.fromEntries(Object.entries(environment).filter(([, value]) => value));
  if (present['OTEL_SDK_DISABLED']?.toLowerCase() === 'true' || present['OTEL_TRACES_EXPORTER'] === 'none')
    return undefined;
  const isOn = ['OTEL_TRACES_EXPORTER', 'OTEL_EXPORTER_OTLP_ENDPOINT', 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'].some(
    (name) => present[name] !== undefined,
  );
  if (!isOn) return undefined;
  const parsed = Variables.safeParse(present);
  if (!parsed.success) {
    const lines = parsed.error.issues.map(({ path: [name], message }) => `${String(name)} ${message}`);
    throw new TracingSettingsError(lines.join('; '));
  }
  const { OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: own, OTEL_EXPORTER_OTLP_PROTOCOL: shared } = parsed.data;
  return { protocol: own ?? shared ?? 'http/protobuf' };
}
