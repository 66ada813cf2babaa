import { beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { all, KUBECTL_MISSING, type Manifest, named, render, renderWith, Workload } from '../harness/kubernetes.js';

/** Who may speak to whom, by the rules of NetworkPolicies: what passes must be allowed where it leaves and where it arrives. */

type Labels = Readonly<Record<string, string>>;

const Selector = z.strictObject({ matchLabels: z.record(z.string(), z.string()).optional() });
/** Of our policies, all the internet's addresses and none of a cluster. */
const Internet = z.strictObject({ cidr: z.enum(['0.0.0.0/0', '::/0']), except: z.array(z.string()).min(2) });
const Peer = z.strictObject({
  podSelector: Selector.optional(),
  namespaceSelector: Selector.optional(),
  ipBlock: Internet.optional(),
});
const Ports = z.array(z.strictObject({ protocol: z.enum(['TCP', 'UDP']), port: z.int(), endPort: z.int().optional() }));
const Policy = z.looseObject({
  kind: z.literal('NetworkPolicy'),
  metadata: z.looseObject({ name: z.string() }),
  spec: z.strictObject({
    podSelector: Selector,
    policyTypes: z.array(z.enum(['Ingress', 'Egress'])),
    ingress: z.array(z.strictObject({ from: z.array(Peer).optional(), ports: Ports })).default([]),
    egress: z.array(z.strictObject({ to: z.array(Peer).optional(), ports: Ports })).default([]),
  }),
});
type Policy = z.output<typeof Policy>;

/** Somebody on the network; whoever is no pod has no labels. */
interface Party {
  readonly namespace?: string;
  readonly labels?: Labels;
}

const selects = (selector: z.output<typeof Selector>, labels: Labels) =>
  Object.entries(selector.matchLabels ?? {}).every(([name, value]) => labels[name] === value);

function isPeer(
  { podSelector, namespaceSelector, ipBlock }: z.output<typeof Peer>,
  { namespace, labels = {} }: Party,
): boolean {
  if (ipBlock) return namespace === undefined;
  if (namespace === undefined) return false;
  const isThere = namespaceSelector
    ? selects(namespaceSelector, { 'kubernetes.io/metadata.name': namespace })
    : namespace === 'bore-platform';
  return isThere && selects(podSelector ?? {}, labels);
}

function passes(policies: readonly Policy[], from: Party, to: Party, port: number, protocol = 'TCP'): boolean {
  const isOpen = (ports: z.output<typeof Ports>) =>
    ports.some((open) => open.protocol === protocol && port >= open.port && port <= (open.endPort ?? open.port));
  const half = (type: 'Ingress' | 'Egress', own: Party, other: Party) => {
    const rules = policies.filter(
      ({ spec }) =>
        own.namespace === 'bore-platform' &&
        spec.policyTypes.includes(type) &&
        selects(spec.podSelector, own.labels ?? {}),
    );
    const peers = rules.flatMap(({ spec }) =>
      type === 'Ingress'
        ? spec.ingress.map((rule) => ({ who: rule.from, ports: rule.ports }))
        : spec.egress.map((rule) => ({ who: rule.to, ports: rule.ports })),
    );
    return (
      rules.length === 0 ||
      peers.some(({ who, ports }) => isOpen(ports) && (who === undefined || who.some((peer) => isPeer(peer, other))))
    );
  };
  return half('Egress', from, to) && half('Ingress', to, from);
}

const ours = (manifests: readonly Manifest[], name: string): Party => ({
  namespace: 'bore-platform',
  labels: named(all(manifests, Workload), name).spec.template.metadata.labels,
});
const pod = (namespace: string, labels: Labels = {}): Party => ({ namespace, labels });

beforeEach((context) => {
  if (KUBECTL_MISSING) context.skip(KUBECTL_MISSING);
});

describe.each([
  ['production', () => render('overlays/production')],
  ['production with one domain', () => renderWith('overlays/production', 'components/one-domain')],
  ['production with notifications', () => renderWith('overlays/production', 'components/notifications')],
])('%s', (overlay, manifestsOf) => {
  const load = () => {
    const manifests = manifestsOf();
    const everything = [...manifests, ...render('references/postgresql'), ...render('references/redis')];
    const parties = {
      internet: {},
      backend: ours(manifests, 'bore-backend'),
      server: ours(manifests, 'bore-server'),
      migrate: ours(manifests, 'bore-migrate'),
      database: pod('bore-platform', { 'cnpg.io/cluster': 'bore-db' }),
      redis: pod('bore-platform', { 'app.kubernetes.io/name': 'bore-redis' }),
      ingress: pod('nginx-ingress'),
      prometheus: pod('monitoring'),
      operator: pod('cnpg-system'),
      dns: pod('kube-system', { 'k8s-app': 'kube-dns' }),
      neighbour: pod('default', { 'app.kubernetes.io/name': 'bore-backend' }),
      stranger: pod('bore-platform', { 'app.kubernetes.io/name': 'debug' }),
    };
    return { policies: all(everything, Policy), parties };
  };
  type Name = keyof ReturnType<typeof load>['parties'];

  const needed: [Name, Name, ...number[]][] = [
    ['internet', 'server', 7835, 10_000, 10_399],
    ['ingress', 'backend', 3000],
    ['server', 'backend', 3000],
    ['backend', 'server', 7836],
    ['backend', 'database', 5432],
    ['migrate', 'database', 5432],
    ['backend', 'redis', 6379, 26_379],
    ['prometheus', 'backend', 3000],
    ['prometheus', 'server', 7836],
    ['prometheus', 'database', 9187],
    ['prometheus', 'redis', 9121],
    ['database', 'database', 5432, 8000],
    ['operator', 'database', 8000],
    ['redis', 'redis', 6379, 26_379],
    ['database', 'internet', 6443],
    ...(overlay.includes('one domain') ? ([['server', 'server', 7837]] satisfies [Name, Name, number][]) : []),
    ...(overlay.includes('notifications') ? ([['backend', 'internet', 443]] satisfies [Name, Name, number][]) : []),
  ];

  it('what must pass does', () => {
    const { policies, parties } = load();
    const stopped = needed.flatMap(([from, to, ...ports]) =>
      ports
        .filter((port) => !passes(policies, parties[from], parties[to], port))
        .map((port) => `${from} → ${to} ${port}`),
    );
    expect(stopped).toEqual([]);
    for (const from of ['backend', 'server', 'migrate', 'database', 'redis'] as const)
      for (const protocol of ['UDP', 'TCP'])
        expect(passes(policies, parties[from], parties.dns, 53, protocol)).toBe(true);
  });

  it('and nothing else, to or from any of ours', () => {
    const { policies, parties } = load();
    const isOurs = ({ namespace }: Party) => namespace === 'bore-platform';
    const ports = [
      22, 53, 80, 443, 3000, 5432, 6379, 6443, 7835, 7836, 7837, 8000, 9121, 9187, 9_999, 10_000, 10_399, 10_400,
      26_379,
    ];
    // clients' and visitors' ports are everybody's, and those of the API of Kubernetes anywhere are the database's
    const isNeeded = (from: Name, to: Name, port: number) =>
      needed.some(([a, b, ...open]) => a === from && b === to && open.includes(port)) ||
      (to === 'server' && [7835, 10_000, 10_399].includes(port)) ||
      (from === 'database' && [443, 6443].includes(port)) ||
      (from === 'operator' && to === 'database' && port === 5432) ||
      (to === 'dns' && port === 53);
    const names = Object.keys(parties).filter((name): name is Name => Object.hasOwn(parties, name));
    const passing = names.flatMap((from) =>
      names.flatMap((to) =>
        ports
          .filter(
            (port) =>
              (isOurs(parties[from]) || isOurs(parties[to])) &&
              !isNeeded(from, to, port) &&
              passes(policies, parties[from], parties[to], port),
          )
          .map((port) => `${from} → ${to} ${port}`),
      ),
    );
    expect(passing).toEqual([]);
  });
});

it('development: the backend, the migrations and their database', () => {
  const manifests = render('overlays/development');
  const policies = all(manifests, Policy);
  const [backend, migrate, server] = ['bore-backend', 'bore-migrate', 'bore-server'].map((name) =>
    ours(manifests, name),
  );
  const database = ours(manifests, 'bore-db');
  const from = (party: Party = {}) => passes(policies, party, database, 5432);
  expect([from(backend), from(migrate), from(server), from({})]).toEqual([true, true, false, false]);
});
