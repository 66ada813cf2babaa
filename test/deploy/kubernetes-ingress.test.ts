import { readFileSync } from 'node:fs';

import { beforeEach, expect, it } from 'vitest';
import { z } from 'zod';

import { all, KUBECTL_MISSING, render } from '../harness/kubernetes.js';

/** What the internet reaches of the API, and for how long it may be silent. */

const read = (file: string) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');

const Ingress = z.looseObject({
  kind: z.literal('Ingress'),
  metadata: z.looseObject({ name: z.string(), annotations: z.record(z.string(), z.string()) }),
  spec: z.looseObject({
    tls: z.array(z.looseObject({ hosts: z.array(z.string()) })).optional(),
    rules: z.tuple([
      z.looseObject({
        host: z.string(),
        http: z
          .looseObject({ paths: z.array(z.looseObject({ path: z.string(), pathType: z.enum(['Exact', 'Prefix']) })) })
          .optional(),
      }),
    ]),
  }),
});

beforeEach((context) => {
  if (KUBECTL_MISSING) context.skip(KUBECTL_MISSING);
});

const ingresses = (overlay: string) => all(render(overlay), Ingress);

/** The Ingress that a request goes to, as the specification of the paths says; the longest path wins. */
function whereTo(url: string, overlay = 'overlays/production') {
  const parts = (text: string) => text.split('/').filter(Boolean);
  const hits = ingresses(overlay).flatMap((ingress) =>
    (ingress.spec.rules[0].http?.paths ?? []).flatMap(({ path, pathType }) => {
      const hit = pathType === 'Exact' ? url === path : parts(path).every((part, i) => part === parts(url)[i]);
      return hit ? [{ name: ingress.metadata.name, length: path.length }] : [];
    }),
  );
  return hits.sort((a, b) => b.length - a.length)[0]?.name;
}

it('every documented route is reached, and nothing of what is between our own programs', () => {
  const { paths } = z.object({ paths: z.record(z.string(), z.unknown()) }).parse(JSON.parse(read('openapi.json')));
  // bore-servers and kubelets go to the pods
  const isPrivate = (route: string) => /^\/api\/v1\/internal\/|^\/health\/|^\/metrics/.test(route);
  const routes = Object.keys(paths);
  expect(routes.length).toBeGreaterThan(40);
  expect(routes.filter((route) => (whereTo(route) === undefined) !== isPrivate(route))).toEqual([]);
  for (const route of ['/api/docs', '/api/docs/', '/api/openapi.json']) expect(whereTo(route), route).toBeDefined();
  for (const route of ['/metrics', '/', '/api/v1', '/api/v1/internal/servers/register', '/health/ready', '/.env'])
    expect(whereTo(route), route).toBeUndefined();
});

it('streams are not buffered, and may be silent for as long as they are; the times are those of deploy/nginx/api.conf', () => {
  const conf = read('deploy/nginx/api.conf');
  const places = [
    ['/api/v1/events', conf.slice(conf.indexOf('location /api/v1/events'), conf.indexOf('location /socket.io/'))],
    ['/socket.io/', conf.slice(conf.indexOf('location /socket.io/'), conf.indexOf('location /api/v1/internal/'))],
    ['/api/v1/tunnels', conf.slice(0, conf.indexOf('location /'))],
  ] as const;
  for (const [url, block] of places) {
    const name = whereTo(url);
    const { annotations } =
      ingresses('overlays/production').find(({ metadata }) => metadata.name === name)?.metadata ?? {};
    expect(annotations?.['nginx.org/proxy-read-timeout'], url).toBe(/proxy_read_timeout (\d+s);/.exec(block)?.[1]);
    expect(annotations?.['nginx.org/proxy-buffering'] === 'False', url).toBe(block.includes('proxy_buffering off'));
    expect(annotations?.['nginx.org/proxy-connect-timeout'], url).toBe('2s');
  }
  expect([whereTo('/api/v1/events'), whereTo('/api/v1/events/status')]).toEqual(['bore-api-events', 'bore-api-events']);
});

it.each(['overlays/development', 'overlays/production'])(
  '%s: one host, one master; TLS where it is production',
  (overlay) => {
    const list = ingresses(overlay);
    expect(new Set(list.map(({ spec }) => spec.rules[0].host)).size).toBe(1);
    const types = list.map(({ metadata }) => metadata.annotations['nginx.org/mergeable-ingress-type']);
    expect(types).toHaveLength(4);
    expect(types.filter((type) => type === 'master')).toHaveLength(1);
    expect(types.filter((type) => type === 'minion')).toHaveLength(3);
    const hosts = list.flatMap(({ spec }) => spec.tls ?? []).flatMap(({ hosts: names }) => names);
    expect(hosts).toEqual(overlay.includes('production') ? [list[0]?.spec.rules[0].host] : []);
  },
);
