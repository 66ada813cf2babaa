import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import ts from 'typescript';
import { beforeEach, describe, expect, inject, it } from 'vitest';
import { parseAllDocuments } from 'yaml';

import { K8S, KUBECTL_MISSING, Manifest, render, renderWith } from '../harness/kubernetes.js';

/** The compiler reads some hundred files of types: a second or two, and more on a busy machine. */
const TIMEOUT_MS = 120_000;
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Where the types of each group are that Kubernetes does not bring itself. */
const OPERATORS: Readonly<Record<string, string>> = {
  'monitoring.coreos.com': '@kubernetes-models/prometheus-operator',
  'postgresql.cnpg.io': '@kubernetes-models/cloudnative-pg',
  'external-secrets.io': '@kubernetes-models/external-secrets',
};

/** The module that declares a kind, such as kubernetes-models/apps/v1/Deployment. */
function moduleOf({ apiVersion, kind }: Manifest): string {
  const [group = ''] = apiVersion.split('/');
  // v1 has the fields of v1beta1, and no package that fits Node 20 has it
  const version = apiVersion.replace(/^external-secrets\.io\/v1$/, 'external-secrets.io/v1beta1');
  return `${OPERATORS[group] ?? 'kubernetes-models'}/${version}/${kind}`;
}

/**
 * What the compiler says of the manifests, written as literals of Kubernetes' own types: it refuses unknown fields, as
 * `--validate=strict` does, beside missing ones, wrong types and unknown words.
 */
function complaints(manifests: readonly Manifest[]): string[] {
  const file = path.join(inject('scratch'), 'manifests.ts');
  const lines = manifests.map((manifest, i) => {
    const text = JSON.stringify(manifest).replace(
      '"apiVersion":"external-secrets.io/v1"',
      '"apiVersion":"external-secrets.io/v1beta1"',
    );
    return `const m${i}: import(${JSON.stringify(moduleOf(manifest))}).I${manifest.kind} = ${text};`;
  });
  writeFileSync(file, `${lines.join('\n')}\n`);
  const host = ts.createCompilerHost({});
  const options: ts.CompilerOptions = {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.Preserve,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
  };
  // the packages are looked up from here, wherever the file is
  host.resolveModuleNameLiterals = (literals, from) =>
    literals.map(({ text }) =>
      ts.resolveModuleName(text, from === file ? path.join(ROOT, 'test/deploy/manifests.ts') : from, options, host),
    );
  const program = ts.createProgram([file], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ messageText, start, file: source }) => {
    const line = source && start !== undefined ? source.getLineAndCharacterOfPosition(start).line : -1;
    const manifest = manifests[line];
    return `${manifest?.kind} ${manifest?.metadata.name}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`;
  });
}

beforeEach((context) => {
  if (KUBECTL_MISSING) context.skip(KUBECTL_MISSING);
});

describe('every manifest is one that Kubernetes takes', { timeout: TIMEOUT_MS }, () => {
  it.each([
    ['overlays/development', () => render('overlays/development')],
    ['overlays/production', () => render('overlays/production')],
    ['overlays/production with one domain', () => renderWith('overlays/production', 'components/one-domain')],
    ['overlays/production with notifications', () => renderWith('overlays/production', 'components/notifications')],
    ['references/postgresql', () => render('references/postgresql')],
    ['references/redis', () => render('references/redis')],
  ])('%s', (_, manifests) => {
    expect(complaints(manifests())).toEqual([]);
  });

  it('references/external-secrets', () => {
    const text = readFileSync(path.join(K8S, 'references/external-secrets/external-secret.yaml'), 'utf8');
    expect(complaints(parseAllDocuments(text).map((document) => document.toJS()))).toEqual([]);
  });

  it('and what it would refuse is noticed', () => {
    const mistakes = [
      ['a field that is none', '"readinessProbe"', '"readynessProbe"'],
      ['a word that is none', '"whenUnsatisfiable":"ScheduleAnyway"', '"whenUnsatisfiable":"Anyway"'],
      ['text for a number', '"minReadySeconds":40', '"minReadySeconds":"40"'],
      ['an object for text', '"priorityClassName":"bore-data-plane"', '"priorityClassName":{}'],
      ['a missing field', '"name":"http","port":3000', '"name":"http"'],
      ['a version that is gone', '"policy/v1"', '"policy/v1alpha9"'],
    ] as const;
    const wrong = mistakes.map(([name, right, mistake]) => {
      const text = render('overlays/production')
        .map((manifest) => JSON.stringify({ ...manifest, metadata: { ...manifest.metadata, name } }))
        .find((candidate) => candidate.includes(right));
      return Manifest.parse(JSON.parse(text?.replace(right, mistake) ?? ''));
    });
    const found = complaints(wrong);
    expect(mistakes.filter(([name]) => !found.some((complaint) => complaint.includes(name)))).toEqual([]);
  });
});
