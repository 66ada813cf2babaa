/**
 * `npm run demo`: with the platform running (`npm start`), a tunnel from end to end by the real borectl, and away with
 * it again. Each step is a line; the first that fails ends it with a sentence and exit code 1.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseEnv, promisify } from 'node:util';

import { z } from 'zod';

import { PROJECT_DIR, STATE_DIR } from './state-folders.js';

const BORECTL = path.join(PROJECT_DIR, 'dist', 'cli', 'main.js');
const SECRETS_FILE = path.join(STATE_DIR, 'secrets.env');

/** Everything here happens on one machine, within a second; the slowest is the hash of the password. */
const STEP_MS = 20_000;
/** What a web page of ours may have. */
const PAGE_BYTES_MAX = 10_000;

const Login = z.object({ ADMIN_EMAIL: z.string().min(1), ADMIN_PASSWORD: z.string().min(1) });
const OpenedTunnel = z.object({ id: z.string(), host: z.string(), port: z.int(), publicAddress: z.string() });

/** The demonstration ends here; the message is a sentence for whoever started it. */
class DemoFailure extends Error {
  override readonly name = 'DemoFailure';
}

interface Demo {
  readonly apiUrl: string;
  /** For borectl: a configuration folder of the demonstration's own, so that no login of the user is touched. */
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
}

let steps = 0;
function step(line: string): void {
  process.stdout.write(`${++steps}. ${line}\n`);
}

async function main(signal: AbortSignal): Promise<void> {
  const { PORT, BORE_API } = process.env;
  const apiUrl = BORE_API || `http://127.0.0.1:${PORT || 3000}`;
  await checkPlatform(apiUrl);
  step(`The platform answers at ${apiUrl}.`);

  const { ADMIN_EMAIL, ADMIN_PASSWORD } = await administrator();
  const configFolder = await mkdtemp(path.join(tmpdir(), 'borectl-demo-'));
  const { PATH, HOME } = process.env;
  const env = { PATH, HOME, XDG_CONFIG_HOME: configFolder, BORE_API: apiUrl };
  const demo = { apiUrl, env, signal };
  try {
    await borectl({ ...demo, env: { ...env, BORE_PASSWORD: ADMIN_PASSWORD } }, 'login', ADMIN_EMAIL);
    step(`borectl login ${ADMIN_EMAIL}`);
    try {
      await throughTunnel(demo);
    } finally {
      // also when the demonstration was interrupted
      await borectl({ ...demo, signal: AbortSignal.timeout(STEP_MS) }, 'logout');
    }
    step('borectl logout');
  } finally {
    await rm(configFolder, { recursive: true, force: true });
  }
  process.stdout.write(
    '\nIt works. Your own port: npm run -s borectl -- login <email>, then npm run -s borectl -- open 8080\n',
  );
}

/** A web page on a local port, seen through its public one. */
async function throughTunnel(demo: Demo): Promise<void> {
  const page = `Hello from a local port. ${randomBytes(8).toString('hex')}\n`;
  const web = http.createServer((_request, response) => response.end(page)).listen(0, '127.0.0.1');
  await once(web, 'listening');
  const local = z.object({ port: z.int() }).parse(web.address()).port;
  step(`A web server listens at http://127.0.0.1:${local}, for this machine only.`);
  try {
    const client = spawn(process.execPath, [BORECTL, 'open', String(local), '--local-host', '127.0.0.1', '--json'], {
      env: demo.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      // Ctrl-C is for us: we stop it, and wait until its tunnel is closed
      detached: true,
    });
    let tunnel: z.infer<typeof OpenedTunnel>;
    try {
      tunnel = await firstLine(client, demo.signal);
      step(`borectl open ${local}: the public address is ${tunnel.publicAddress}`);
      const received = await fetchPage(tunnel, demo.signal);
      if (received !== page) throw new DemoFailure(`The page came back different: ${JSON.stringify(received)}`);
      step(`http://${tunnel.publicAddress}/ answers: ${received.trimEnd()}`);
    } finally {
      await stop(client);
    }
    step('Ctrl-C for borectl: it has closed the tunnel.');
    if (await answers(tunnel)) throw new DemoFailure(`The public port ${tunnel.port} is still open.`);
    step(`${tunnel.publicAddress} takes no visitors any more.`);
  } finally {
    web.close();
    web.closeAllConnections();
  }
}

async function checkPlatform(apiUrl: string): Promise<void> {
  try {
    const response = await fetch(`${apiUrl}/health`, { signal: AbortSignal.timeout(STEP_MS) });
    if (response.ok) return;
    throw new Error(`HTTP status ${response.status}`);
  } catch (cause) {
    throw new DemoFailure(
      `The platform does not run at ${apiUrl}: start it first with npm start, in another terminal.`,
      { cause },
    );
  }
}

/** The login that `npm start` has made up; variables of the environment win. */
async function administrator(): Promise<z.infer<typeof Login>> {
  const fromEnvironment = Login.safeParse(process.env);
  if (fromEnvironment.success) return fromEnvironment.data;
  try {
    return Login.parse(parseEnv(await readFile(SECRETS_FILE, 'utf8')));
  } catch (cause) {
    throw new DemoFailure(
      `The administrator’s login is not in ${SECRETS_FILE}: start the platform with npm start, or set ADMIN_EMAIL and ADMIN_PASSWORD.`,
      { cause },
    );
  }
}

async function borectl({ env, signal }: Demo, ...args: string[]): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [BORECTL, ...args], { env, signal, timeout: STEP_MS });
  } catch (cause) {
    const said = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : '';
    throw new DemoFailure(`borectl ${args.join(' ')} failed. ${said}`, { cause });
  }
}

/** What `borectl open --json` says when the tunnel works. */
async function firstLine(client: ChildProcess, signal: AbortSignal): Promise<z.infer<typeof OpenedTunnel>> {
  if (!client.stdout || !client.stderr) throw new Error('borectl has no output');
  let said = '';
  client.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-PAGE_BYTES_MAX)));
  const lines = createInterface({ input: client.stdout });
  const patience = withinStep(signal);
  try {
    const [line] = z
      .tuple([z.string()])
      .parse(
        await Promise.race([once(lines, 'line', { signal: patience }), once(client, 'close', { signal: patience })]),
      );
    return OpenedTunnel.parse(JSON.parse(line));
  } catch (cause) {
    throw new DemoFailure(`borectl open failed. ${said.trim()}`, { cause });
  }
}

async function stop(client: ChildProcess): Promise<void> {
  if (client.exitCode !== null || client.signalCode !== null) return;
  const closed = once(client, 'close', { signal: AbortSignal.timeout(STEP_MS) });
  client.kill('SIGINT');
  try {
    await closed;
  } catch (cause) {
    client.kill('SIGKILL');
    throw new DemoFailure('borectl open did not end.', { cause });
  }
  if (client.exitCode !== 0) throw new DemoFailure(`borectl open ended with exit code ${client.exitCode}.`);
}

/** `fetch` refuses some ports of a tunnel's range by their number (10080). */
async function fetchPage({ host, port }: { host: string; port: number }, signal: AbortSignal): Promise<string> {
  const patience = withinStep(signal);
  try {
    const request = http.get({ host, port, agent: false, signal: patience });
    const response = z.instanceof(http.IncomingMessage).parse((await once(request, 'response'))[0]);
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) {
      text += String(chunk);
      if (text.length > PAGE_BYTES_MAX) throw new Error('too long a page');
    }
    return text;
  } catch (cause) {
    throw new DemoFailure(`http://${host}:${port}/ does not answer.`, { cause });
  }
}

/** Whether a visitor is answered. A balancer in front takes connections also for nobody, and ends them at once. */
async function answers({ host, port }: { host: string; port: number }): Promise<boolean> {
  const socket = net.connect({ host, port }).setTimeout(STEP_MS, () => socket.destroy());
  try {
    socket.write('GET / HTTP/1.0\r\n\r\n');
    await once(socket, 'data', { signal: ending(socket) });
    return true;
  } catch {
    return false; // refused or ended, as it should be; or silence, which takes no visitors either
  } finally {
    socket.destroy();
  }
}

/** Ends with `signal` or the time of a step. By hand: AbortSignal.any lets garbage collection forget a timeout (Node 20). */
function withinStep(signal: AbortSignal): AbortSignal {
  const over = new AbortController();
  const end = () => over.abort();
  setTimeout(end, STEP_MS).unref();
  if (signal.aborted) end();
  signal.addEventListener('abort', end, { once: true });
  return over.signal;
}

function ending(socket: net.Socket): AbortSignal {
  const ended = new AbortController();
  socket.once('end', () => ended.abort()).once('close', () => ended.abort());
  return ended.signal;
}

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interruption.abort());
try {
  await main(interruption.signal);
} catch (error) {
  if (!(error instanceof DemoFailure)) throw error;
  process.stderr.write(interruption.signal.aborted ? 'Interrupted; everything is cleaned up.\n' : `${error.message}\n`);
  process.exitCode = interruption.signal.aborted ? 130 : 1;
}
