import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { all, type Container, KUBECTL_MISSING, render, renderWith, Service, Workload } from '../harness/kubernetes.js';

/** The checks of kube-linter that apply here, by their names there where they have one. */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

beforeEach((context) => {
  if (KUBECTL_MISSING) context.skip(KUBECTL_MISSING);
});

const Kind = z.looseObject({ kind: z.string(), metadata: z.looseObject({ name: z.string() }) });
const Budget = Kind.extend({
  kind: z.literal('PodDisruptionBudget'),
  spec: z.looseObject({
    maxUnavailable: z.int(),
    selector: z.looseObject({ matchLabels: z.record(z.string(), z.string()) }),
  }),
});
const Autoscaler = Kind.extend({
  kind: z.literal('HorizontalPodAutoscaler'),
  spec: z.looseObject({ minReplicas: z.int(), scaleTargetRef: z.looseObject({ kind: z.string(), name: z.string() }) }),
});
const Namespace = Kind.extend({
  kind: z.literal('Namespace'),
  metadata: z.looseObject({ name: z.string(), labels: z.record(z.string(), z.string()) }),
});
const Ingress = Kind.extend({
  kind: z.literal('Ingress'),
  spec: z.looseObject({
    rules: z.array(
      z.looseObject({
        http: z
          .looseObject({
            paths: z.array(
              z.looseObject({
                backend: z.looseObject({
                  service: z.looseObject({ name: z.string(), port: z.looseObject({ name: z.string() }) }),
                }),
              }),
            ),
          })
          .optional(),
      }),
    ),
  }),
});

const matches = (selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>) =>
  Object.entries(selector).every(([name, value]) => labels[name] === value);

/** Labels of a workload's pods: those of a StatefulSet have their names too. */
function labelsOfPods({ kind, metadata, spec }: Workload): Record<string, string>[] {
  const { labels } = spec.template.metadata;
  if (kind !== 'StatefulSet') return [labels];
  return Array.from({ length: spec.replicas ?? 1 }, (_, i) => ({
    ...labels,
    'statefulset.kubernetes.io/pod-name': `${metadata.name}-${i}`,
  }));
}

const containersOf = (workload: Workload): Container[] => [
  ...workload.spec.template.spec.containers,
  ...workload.spec.template.spec.initContainers,
];

describe.each([
  ['overlays/development', () => render('overlays/development')],
  ['overlays/production', () => render('overlays/production')],
  ['overlays/production with one domain', () => renderWith('overlays/production', 'components/one-domain')],
  ['overlays/production with notifications', () => renderWith('overlays/production', 'components/notifications')],
])('%s', (overlay, manifestsOf) => {
  const isProduction = overlay.includes('production');
  const load = () => {
    const manifests = manifestsOf();
    return { manifests, workloads: all(manifests, Workload), services: all(manifests, Service) };
  };
  const containers = () => load().workloads.flatMap(containersOf);
  const pods = () => load().workloads.map(({ metadata, spec }) => ({ name: metadata.name, ...spec.template.spec }));
  /** The names of those that a check finds fault with. */
  const failing = <T extends { name: string }>(objects: T[], isWrong: (object: T) => boolean) => {
    expect(objects.length).toBeGreaterThan(2);
    return objects.filter(isWrong).map(({ name }) => name);
  };

  it('Pod Security `restricted`, on the namespace and in every pod', () => {
    const { manifests } = load();
    const [namespace] = all(manifests, Namespace);
    expect(namespace?.metadata.labels['pod-security.kubernetes.io/enforce']).toBe('restricted');
    expect(
      failing(
        pods(),
        ({ securityContext: own, ...pod }) =>
          own?.runAsNonRoot !== true ||
          !((own.runAsUser ?? 0) > 0) ||
          own.seccompProfile?.type !== 'RuntimeDefault' ||
          ['hostNetwork', 'hostPID', 'hostIPC'].some((field) => Object.hasOwn(pod, field)) ||
          // sysctls outside the safe list, too
          Object.hasOwn(own, 'sysctls'),
      ),
    ).toEqual([]);
    expect(
      failing(
        containers(),
        ({ securityContext: own, ports }) =>
          own?.allowPrivilegeEscalation !== false ||
          own.privileged === true ||
          !own.capabilities?.drop?.includes('ALL') ||
          (own.capabilities.add ?? []).length > 0 ||
          ports.some((port) => Object.hasOwn(port, 'hostPort')),
      ),
    ).toEqual([]);
  });

  it('volumes are of the kinds that `restricted` allows, and there for every mount', () => {
    for (const { spec } of load().workloads) {
      const { volumes } = spec.template.spec;
      const kinds = volumes.flatMap((volume) => Object.keys(volume)).filter((key) => key !== 'name');
      expect(kinds.filter((kind) => !['configMap', 'emptyDir', 'projected', 'secret'].includes(kind))).toEqual([]);
      const names = [...volumes, ...spec.volumeClaimTemplates.map(({ metadata }) => metadata)].map(({ name }) => name);
      for (const { volumeMounts } of spec.template.spec.containers)
        expect(names).toEqual(expect.arrayContaining(volumeMounts.map(({ name }) => name)));
    }
  });

  it('no-read-only-root-fs', () => {
    expect(failing(containers(), ({ securityContext: own }) => own?.readOnlyRootFilesystem !== true)).toEqual([]);
  });

  it('latest-tag: images have a version', () => {
    expect(failing(containers(), ({ image }) => !/^[^:@]+(:\d+)?\/?[^:@]*:\d+\.\d+[\w.-]*$/.test(image))).toEqual([]);
  });

  it('unset-cpu-requirements, unset-memory-requirements', () => {
    expect(
      failing(
        containers(),
        ({ resources: own }) => !own?.requests['cpu'] || !own.requests['memory'] || !own.limits['memory'],
      ),
    ).toEqual([]);
  });

  it('no-liveness-probe, no-readiness-probe, and a start-up probe; a job needs none', () => {
    const longRunning = load().workloads.filter(({ kind }) => kind !== 'Job');
    expect(longRunning.length).toBeGreaterThanOrEqual(2);
    for (const container of longRunning.flatMap(({ spec }) => spec.template.spec.containers)) {
      const probes = [container.startupProbe, container.livenessProbe, container.readinessProbe];
      expect(probes, container.name).toEqual([expect.anything(), expect.anything(), expect.anything()]);
      for (const probe of probes) {
        const port = probe?.httpGet?.port;
        if (port !== undefined) expect(container.ports.map(({ name }) => name)).toContain(port);
      }
    }
  });

  it('env-var-secret: no variable that holds a secret has its value here, and no Secret is here', () => {
    const { manifests } = load();
    expect(manifests.filter(({ kind }) => kind === 'Secret')).toEqual([]);
    const isSecret = (name: string) => /SECRET|PASSWORD|_KEY|TOKEN|CREDENTIAL/.test(name);
    const ConfigMap = Kind.extend({ kind: z.literal('ConfigMap'), data: z.record(z.string(), z.string()) });
    const named = [
      ...containers().flatMap(({ env }) => env.filter(({ value }) => value !== undefined)),
      ...all(manifests, ConfigMap).flatMap(({ data }) => Object.keys(data).map((name) => ({ name }))),
    ];
    expect(failing(named, ({ name }) => isSecret(name))).toEqual([]);
  });

  it('non-existent-service-account, default-service-account; nobody has a token', () => {
    const accounts = load().manifests.filter(({ kind }) => kind === 'ServiceAccount');
    const names = accounts.map(({ metadata }) => metadata.name);
    expect(failing(pods(), ({ serviceAccountName: own = 'default' }) => !names.includes(own))).toEqual([]);
    expect(failing(pods(), ({ automountServiceAccountToken: own }) => own !== false)).toEqual([]);
    expect(accounts.filter((account) => account['automountServiceAccountToken'] !== false)).toEqual([]);
  });

  it('service links are off: BORE_SERVER_PORT is a setting, and what Kubernetes would set for the service bore-server', () => {
    expect(failing(pods(), ({ enableServiceLinks: own }) => own !== false)).toEqual([]);
  });

  it('priority classes that there are', () => {
    const classes = load().manifests.filter(({ kind }) => kind === 'PriorityClass');
    const names = classes.map(({ metadata }) => metadata.name);
    expect(failing(pods(), ({ priorityClassName: own = '' }) => !names.includes(own))).toEqual([]);
  });

  it('mismatching-selector, no-anti-affinity: selectors and spreading are of the pods themselves', () => {
    for (const { kind, metadata, spec } of load().workloads) {
      const { labels } = spec.template.metadata;
      if (kind !== 'Job') {
        expect(Object.keys(spec.selector?.matchLabels ?? {}), metadata.name).not.toEqual([]);
        expect(matches(spec.selector?.matchLabels ?? {}, labels), metadata.name).toBe(true);
      }
      const spread = spec.template.spec.topologySpreadConstraints;
      for (const { labelSelector } of spread) expect(matches(labelSelector.matchLabels, labels)).toBe(true);
      if (['bore-backend', 'bore-server'].includes(metadata.name))
        expect(spread.map(({ topologyKey }) => topologyKey)).toEqual([
          'kubernetes.io/hostname',
          'topology.kubernetes.io/zone',
        ]);
    }
  });

  it('dangling-service: a service leads to pods, and to ports that they have', () => {
    const { workloads, services } = load();
    expect(services.length).toBeGreaterThan(2);
    for (const { metadata, spec } of services) {
      const behind = workloads.filter((workload) =>
        labelsOfPods(workload).some((labels) => matches(spec.selector, labels)),
      );
      expect(
        behind.map((workload) => workload.metadata.name),
        metadata.name,
      ).toHaveLength(1);
      const names = behind.flatMap(containersOf).flatMap(({ ports }) => ports.map(({ name }) => name));
      for (const { targetPort } of spec.ports) if (typeof targetPort === 'string') expect(names).toContain(targetPort);
    }
    for (const { kind, spec } of workloads)
      if (kind === 'StatefulSet') expect(services.map(({ metadata }) => metadata.name)).toContain(spec.serviceName);
  });

  it('dangling-ingress: a path leads to a service and its port', () => {
    const { manifests, services } = load();
    const ports = services.flatMap(({ metadata, spec }) => spec.ports.map(({ name }) => `${metadata.name}:${name}`));
    const backends = all(manifests, Ingress)
      .flatMap(({ spec }) => spec.rules.flatMap(({ http }) => http?.paths ?? []))
      .map(({ backend: { service } }) => `${service.name}:${service.port.name}`);
    expect(backends.length).toBeGreaterThan(5);
    expect(backends.filter((backend) => !ports.includes(backend))).toEqual([]);
  });

  it('everything but what belongs to no namespace is in ours', () => {
    const outside = load().manifests.filter(({ metadata }) => metadata.namespace !== 'bore-platform');
    expect(new Set(outside.map(({ kind }) => kind))).toEqual(new Set(['Namespace', 'PriorityClass']));
  });

  it('dangling-horizontalpodautoscaler, dangling-poddisruptionbudget, minimum-three-replicas', () => {
    const { manifests, workloads } = load();
    const [scalers, budgets] = [all(manifests, Autoscaler), all(manifests, Budget)];
    // it would end pods that carry live connections
    const scaled = scalers.map(({ spec }) => `${spec.scaleTargetRef.kind}/${spec.scaleTargetRef.name}`);
    expect(scaled).toEqual(isProduction ? ['Deployment/bore-backend'] : []);
    for (const { kind, metadata, spec } of workloads) {
      if (kind === 'Job' || !isProduction) continue;
      const scaler = scalers.find((one) => one.spec.scaleTargetRef.name === metadata.name);
      // replicas beside an autoscaler would be set back with each `apply`
      expect(spec.replicas === undefined, metadata.name).toBe(scaler !== undefined);
      expect(scaler?.spec.minReplicas ?? spec.replicas, metadata.name).toBeGreaterThanOrEqual(3);
      const own = budgets.filter((budget) => matches(budget.spec.selector.matchLabels, spec.template.metadata.labels));
      expect(
        own.map((budget) => budget.spec.maxUnavailable),
        metadata.name,
      ).toEqual([1]);
    }
    expect(budgets).toHaveLength(isProduction ? 2 : 0);
  });

  it('programs are files of the build', () => {
    for (const { command, args } of containers().filter(({ image }) => image.includes('bore-platform/'))) {
      expect([command[0], args]).toEqual(['node', []]);
      expect(existsSync(`${ROOT}${command[1]}`), command[1]).toBe(true);
    }
  });
});
