/**
 * `npm run kubernetes:generate`: writes those files of k8s/ that follow from others. With `--check` it writes nothing, and exits with 1
 * when one of them is not what it would write.
 *
 * - overlays/x/bore-server-public.yaml: a service for each bore-server, with each of its public ports. Kubernetes knows no service for a
 *   range of ports, and kustomize no loop.
 * - components/monitoring/prometheus-rule.yaml: the rules of Prometheus in monitoring/.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs, parseEnv } from 'node:util';

import { parse, stringify } from 'yaml';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const K8S = `${ROOT}k8s`;
const HEADER = '# Written by npm run kubernetes:generate, from';

const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });

const yaml = (file) => parse(readFileSync(file, 'utf8'));
const env = (file) => parseEnv(readFileSync(file, 'utf8'));
const documents = (objects) =>
  objects.map((object) => stringify(object, { lineWidth: 0, singleQuote: true })).join('---\n');

function publicServices(overlay) {
  const settings = { ...env(`${K8S}/base/bore-server.env`), ...env(`${overlay}/bore-server.env`) };
  const [first] = settings.BORE_PORT_RANGE.split(':').map(Number);
  const size = Number(settings.BORE_PORTS_PER_SERVER);
  const { count } = yaml(`${overlay}/kustomization.yaml`).replicas.find(({ name }) => name === 'bore-server');
  const services = Array.from({ length: count }, (_, ordinal) => {
    const pod = `bore-server-${ordinal}`;
    const ports = Array.from({ length: size }, (__, i) => first + ordinal * size + i);
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: {
        name: pod,
        annotations: { 'external-dns.alpha.kubernetes.io/hostname': `${pod}.${settings.TUNNEL_DOMAIN}` },
      },
      spec: {
        type: 'LoadBalancer',
        // clients and visitors keep their addresses: limits and bans count by them
        externalTrafficPolicy: 'Local',
        // a server that ends, or that the control plane does not know, carries on what it has
        publishNotReadyAddresses: true,
        selector: { 'statefulset.kubernetes.io/pod-name': pod },
        ports: [
          { name: 'control', port: Number(settings.BORE_CONTROL_PORT), targetPort: 'control' },
          ...ports.map((port) => ({ name: `public-${port}`, port, targetPort: port })),
        ],
      },
    };
  });
  return `${HEADER} replicas in kustomization.yaml and the ports in bore-server.env.\n${documents(services)}`;
}

/** Groups and nothing else: tests of rules, and Prometheus' own settings, have more. */
const isRuleFile = (document) => Object.keys(document).join() === 'groups';

function prometheusRule() {
  const files = readdirSync(`${ROOT}monitoring`, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.ya?ml$/.test(file) && isRuleFile(yaml(`${ROOT}monitoring/${file}`)))
    .sort();
  const groups = files.flatMap((file) => yaml(`${ROOT}monitoring/${file}`).groups);
  const rule = {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: { name: 'bore-platform' },
    spec: { groups },
  };
  return `${HEADER} ${files.map((file) => `monitoring/${file}`).join(', ')}.\n${documents([rule])}`;
}

const overlays = readdirSync(`${K8S}/overlays`).map((name) => `${K8S}/overlays/${name}`);
const files = new Map([
  ...overlays.map((overlay) => [`${overlay}/bore-server-public.yaml`, publicServices(overlay)]),
  [`${K8S}/components/monitoring/prometheus-rule.yaml`, prometheusRule()],
]);
for (const [file, text] of files) {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) continue;
  if (values.check) {
    process.stderr.write(`${file.slice(ROOT.length)} is not what npm run kubernetes:generate writes\n`);
    process.exitCode = 1;
  } else {
    writeFileSync(file, text);
    process.stdout.write(`written: ${file.slice(ROOT.length)}\n`);
  }
}
