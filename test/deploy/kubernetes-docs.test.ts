import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseEnv } from 'node:util';

import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';

import { PortRange, shareOf } from '../../src/bore-server/port-range.js';
import { K8S } from '../harness/kubernetes.js';

const ROOT = path.join(K8S, '..');
const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8');
const DOC = read('docs/kubernetes.md');
const cells = [...DOC.matchAll(/^\| (.+?) +\| (.+?) +\|(?: (.+?) +\|)?$/gm)].map(([, ...row]) => row);
const rowOf = (name: string) => cells.find(([first]) => first === name)?.slice(1) ?? [];

it('the times of docs/kubernetes.md are those of the manifests', () => {
  const settings = parseEnv(read('k8s/base/backend.env'));
  const { spec } = z
    .object({
      spec: z.object({
        minReadySeconds: z.int(),
        template: z.object({ spec: z.object({ terminationGracePeriodSeconds: z.int() }) }),
      }),
    })
    .parse(parse(read('k8s/base/backend-deployment.yaml')));
  expect(rowOf('`SHUTDOWN_DRAIN_SECONDS`')[0]).toBe(`${settings['SHUTDOWN_DRAIN_SECONDS']} s`);
  expect(rowOf('`terminationGracePeriodSeconds`')[0]).toBe(`${spec.template.spec.terminationGracePeriodSeconds} s`);
  expect(rowOf('`minReadySeconds`')[0]).toBe(`${spec.minReadySeconds} s`);
});

it.each([0, 1, 9])('and so are the name and the ports of bore-server-%d', (ordinal) => {
  const settings = parseEnv(read('k8s/base/bore-server.env'));
  const { TUNNEL_DOMAIN } = parseEnv(read('k8s/overlays/production/bore-server.env'));
  const range = PortRange.parse(settings['BORE_PORT_RANGE']);
  const share = z
    .object({ min: z.int(), max: z.int() })
    .parse(shareOf(range, Number(settings['BORE_PORTS_PER_SERVER']), ordinal));
  expect(rowOf(`\`bore-server-${ordinal}\``)).toEqual([
    `\`bore-server-${ordinal}.${TUNNEL_DOMAIN}\``,
    `${share.min}–${share.max}`,
  ]);
});

it('the folders and commands that it names are there', () => {
  const { scripts } = z.object({ scripts: z.record(z.string(), z.string()) }).parse(JSON.parse(read('package.json')));
  const commands = [...DOC.matchAll(/npm run (?:-s )?([\w:]+)/g)].map(([, name = '']) => name);
  expect(commands.length).toBeGreaterThan(3);
  expect(commands.filter((name) => scripts[name] === undefined)).toEqual([]);
  const folders = [
    ...[...DOC.matchAll(/\b(k8s\/[\w./-]*\w)/g)].map(([, name = '']) => name),
    ...cells
      .flatMap(([name = '']) => /^`((?:base|overlays|components|references)[\w/-]*)`$/.exec(name)?.[1] ?? [])
      .map((name) => `k8s/${name}`),
  ];
  expect(folders.length).toBeGreaterThan(10);
  expect(folders.filter((name) => !existsSync(path.join(ROOT, name)))).toEqual([]);
});
