import { spawnSync } from 'node:child_process';
import { mkdtempSync, realpathSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { inject } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { z } from 'zod';

export const K8S = fileURLToPath(new URL('../../k8s', import.meta.url));
/** Manifests of one installation are some 60 KB. */
const OUTPUT_BYTES_MAX = 10_000_000;

const Named = z.looseObject({ name: z.string() });
const KeyRef = Named.extend({ key: z.string(), optional: z.boolean().optional() });
const Env = Named.extend({
  value: z.string().optional(),
  valueFrom: z
    .strictObject({
      secretKeyRef: KeyRef.optional(),
      configMapKeyRef: KeyRef.optional(),
      fieldRef: z.looseObject({ fieldPath: z.string() }).optional(),
    })
    .optional(),
});
const Port = z.union([z.string(), z.int()]);
const Probe = z.looseObject({
  httpGet: z.looseObject({ path: z.string(), port: Port }).optional(),
  periodSeconds: z.int(),
  timeoutSeconds: z.int(),
  failureThreshold: z.int(),
});
const SecurityContext = z.looseObject({
  runAsNonRoot: z.boolean().optional(),
  runAsUser: z.int().optional(),
  privileged: z.boolean().optional(),
  readOnlyRootFilesystem: z.boolean().optional(),
  allowPrivilegeEscalation: z.boolean().optional(),
  capabilities: z.looseObject({ drop: z.array(z.string()).optional(), add: z.array(z.string()).optional() }).optional(),
  seccompProfile: z.looseObject({ type: z.string() }).optional(),
});
const Container = Named.extend({
  image: z.string(),
  command: z.array(z.string()).default([]),
  args: z.array(z.string()).default([]),
  ports: z.array(z.looseObject({ name: z.string(), containerPort: z.int() })).default([]),
  env: z.array(Env).default([]),
  envFrom: z.array(z.strictObject({ configMapRef: Named })).default([]),
  startupProbe: Probe.optional(),
  livenessProbe: Probe.optional(),
  readinessProbe: Probe.optional(),
  volumeMounts: z.array(Named.extend({ mountPath: z.string() })).default([]),
  securityContext: SecurityContext.optional(),
  resources: z
    .looseObject({
      requests: z.record(z.string(), z.string()).default({}),
      limits: z.record(z.string(), z.string()).default({}),
    })
    .optional(),
});
const Selector = z.looseObject({ matchLabels: z.record(z.string(), z.string()).default({}) });
const PodSpec = z.looseObject({
  containers: z.array(Container),
  initContainers: z.array(Container).default([]),
  serviceAccountName: z.string().optional(),
  automountServiceAccountToken: z.boolean().optional(),
  enableServiceLinks: z.boolean().optional(),
  priorityClassName: z.string().optional(),
  terminationGracePeriodSeconds: z.int().optional(),
  securityContext: SecurityContext.optional(),
  topologySpreadConstraints: z.array(z.looseObject({ labelSelector: Selector, topologyKey: z.string() })).default([]),
  volumes: z.array(Named).default([]),
});
const Metadata = z.looseObject({
  name: z.string(),
  namespace: z.string().optional(),
  labels: z.record(z.string(), z.string()).default({}),
  annotations: z.record(z.string(), z.string()).default({}),
});
export const PodTemplate = z.looseObject({ metadata: Metadata.partial({ name: true }), spec: PodSpec });
export const Workload = z.looseObject({
  kind: z.enum(['Deployment', 'StatefulSet', 'Job']),
  metadata: Metadata,
  spec: z.looseObject({
    replicas: z.int().optional(),
    serviceName: z.string().optional(),
    selector: Selector.optional(),
    template: PodTemplate,
    volumeClaimTemplates: z.array(z.looseObject({ metadata: Named })).default([]),
  }),
});
export type Workload = z.output<typeof Workload>;
export type Container = z.output<typeof Container>;
export const Service = z.looseObject({
  kind: z.literal('Service'),
  metadata: Metadata,
  spec: z.looseObject({
    type: z.string().default('ClusterIP'),
    selector: z.record(z.string(), z.string()),
    publishNotReadyAddresses: z.boolean().default(false),
    ports: z.array(z.looseObject({ name: z.string(), port: z.int(), targetPort: Port })),
  }),
});
export const Manifest = z.looseObject({ apiVersion: z.string(), kind: z.string(), metadata: Metadata });
export type Manifest = z.output<typeof Manifest>;

/** Why nothing can be rendered here; `undefined` where it can. */
export const KUBECTL_MISSING = spawnSync('kubectl', ['kustomize', '--help']).status === 0 ? undefined : 'needs kubectl';

/** Half a second each; as many as a suite names. */
const rendered = new Map<string, Manifest[]>();

/** What `kubectl apply -k` of a folder below k8s/ would send. */
export function render(folder: string): Manifest[] {
  return once(folder, () => kustomize(path.join(K8S, folder)));
}

/** The same of an overlay with a component that none of ours has. */
export function renderWith(overlay: string, component: string): Manifest[] {
  return once(`${overlay} ${component}`, () => {
    const folder = mkdtempSync(path.join(realpathSync(inject('scratch')), 'kustomize-'));
    const from = (name: string) => path.relative(folder, path.join(realpathSync(K8S), name));
    writeFileSync(
      path.join(folder, 'kustomization.yaml'),
      stringify({ namespace: 'bore-platform', resources: [from(overlay)], components: [from(component)] }),
    );
    return kustomize(folder);
  });
}

function once(name: string, make: () => Manifest[]): Manifest[] {
  const manifests = rendered.get(name) ?? make();
  rendered.set(name, manifests);
  return manifests;
}

function kustomize(folder: string): Manifest[] {
  const { status, stdout, stderr } = spawnSync('kubectl', ['kustomize', folder], {
    encoding: 'utf8',
    maxBuffer: OUTPUT_BYTES_MAX,
  });
  // a deprecated field is a warning there, and a mistake here
  if (status !== 0 || stderr !== '') throw new Error(`kubectl kustomize ${folder}: ${stderr}`);
  return parseAllDocuments(stdout).map((document) => Manifest.parse(document.toJS()));
}

/** Those of one kind. */
export function all<T>(manifests: readonly Manifest[], schema: z.ZodType<T>): T[] {
  return manifests.flatMap((manifest) => {
    const parsed = schema.safeParse(manifest);
    if (parsed.success) return [parsed.data];
    // of this kind, and not as it should be
    if (!parsed.error.issues.some(({ path: at }) => at[0] === 'kind')) throw parsed.error;
    return [];
  });
}

/** The one of a name. */
export function named<T extends { metadata: { name: string } }>(objects: readonly T[], name: string): T {
  const found = objects.find(({ metadata }) => metadata.name === name);
  if (!found) throw new Error(`there is no ${name}`);
  return found;
}

/**
 * The environment of a container, as a kubelet makes it: what `$(NAME)` stands for must be declared before it in `env`.
 * @param secrets name → key → value; a key that is missing leaves out a variable that is optional
 */
export function environmentOf(
  manifests: readonly Manifest[],
  container: Container,
  pod: { readonly name: string; readonly namespace: string },
  secrets: Readonly<Record<string, Readonly<Record<string, string>>>>,
): Record<string, string> {
  const maps = all(manifests, ConfigMap);
  const fields = new Map([
    ['metadata.name', pod.name],
    ['metadata.namespace', pod.namespace],
  ]);
  const own: Record<string, string> = {};
  for (const { name, value, valueFrom } of container.env) {
    const { secretKeyRef: secret, configMapKeyRef: setting, fieldRef: field } = valueFrom ?? {};
    const text =
      (secret && secrets[secret.name]?.[secret.key]) ??
      (setting && named(maps, setting.name).data[setting.key]) ??
      (field && fields.get(field.fieldPath)) ??
      value?.replaceAll(/\$\((\w+)\)/g, (whole, variable: string) => own[variable] ?? whole);
    if (text !== undefined) own[name] = text;
    else if (secret?.optional !== true) throw new Error(`${container.name}: nothing for ${name}`);
  }
  const shared = container.envFrom.map(({ configMapRef }) => named(maps, configMapRef.name).data);
  return { ...Object.assign({}, ...shared), ...own };
}

const ConfigMap = z.looseObject({
  kind: z.literal('ConfigMap'),
  metadata: Metadata,
  data: z.record(z.string(), z.string()),
});
