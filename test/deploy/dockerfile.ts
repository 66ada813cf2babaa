import { readFileSync } from 'node:fs';
import path from 'node:path';

import { DockerfileParser } from 'dockerfile-ast';

import { ROOT } from './packaged.js';

/** One line of a Dockerfile: `COPY --from=build a b`. */
export interface Step {
  readonly keyword: string;
  /** Without flags, as it is written. */
  readonly text: string;
  readonly args: readonly string[];
  readonly flags: Readonly<Record<string, string>>;
}

/** What follows a FROM. */
export interface Stage {
  readonly name: string;
  /** An image, or another stage. */
  readonly from: string;
  readonly steps: readonly Step[];
}

/** The Dockerfile: what stands before the first FROM, and its stages. */
export interface Dockerfile {
  readonly args: Readonly<Record<string, string>>;
  readonly stages: readonly Stage[];
}

export function readDockerfile(): Dockerfile {
  const args: Record<string, string> = {};
  const stages: { name: string; from: string; steps: Step[] }[] = [];
  for (const instruction of DockerfileParser.parse(
    readFileSync(path.join(ROOT, 'Dockerfile'), 'utf8'),
  ).getInstructions()) {
    const step = stepOf(instruction.getKeyword(), instruction.getTextContent().replace(/^\s*\w+\s+/, ''));
    const stage = stages.at(-1);
    if (step.keyword === 'FROM') stages.push({ from: step.args[0] ?? '', name: step.args[2] ?? '', steps: [] });
    else if (stage) stage.steps.push(step);
    else args[step.text.split('=')[0] ?? ''] = step.text.split('=').slice(1).join('=');
  }
  return { args, stages };
}

function stepOf(keyword: string, raw: string): Step {
  const [, flagText = '', rest = ''] = /^((?:\s*--[\w-]+=\S+)*)\s*(.*)$/s.exec(raw) ?? [];
  const flags = Object.fromEntries([...flagText.matchAll(/--([\w-]+)=(\S+)/g)].map(([, name, value]) => [name, value]));
  const text = rest.replaceAll(/^\s*#.*\n/gm, '').replaceAll(/\\\n\s*/g, '');
  return { keyword, text, args: text.split(/\s+/).filter(Boolean), flags };
}

/** All steps of a stage, those of the stages that it is made from first. */
export function stepsOf({ stages }: Dockerfile, name: string): Step[] {
  const stage = stages.find((each) => each.name === name);
  if (!stage) return [];
  return [...stepsOf({ args: {}, stages }, stage.from), ...stage.steps];
}

/** What a CMD, an ENTRYPOINT or a HEALTHCHECK runs. @throws Error when it is not written as a list */
export function listOf(step: Step | undefined): string[] {
  const list: unknown = JSON.parse((step?.text ?? '').replace(/^CMD\s+/, ''));
  if (!Array.isArray(list) || !list.every((each) => typeof each === 'string'))
    throw new Error(`no list: ${step?.text}`);
  return list;
}

/** Whether .dockerignore lets a file of the clone into a build. The last pattern that matches decides. */
export function isSent(file: string): boolean {
  let sent = true;
  for (const line of readFileSync(path.join(ROOT, '.dockerignore'), 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const pattern = line.replace(/^!/, '');
    if (pattern === '*' || file === pattern || file.startsWith(`${pattern}/`)) sent = line.startsWith('!');
  }
  return sent;
}
