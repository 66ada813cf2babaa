import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { inject } from 'vitest';

import { findNginx, nginxCommand, type NginxPlace } from '../../src/local/nginx.js';
import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { RunningProcess } from './running-process.js';

/** Why there is no nginx that passes TCP on, or `undefined`. */
export function nginxUnavailable(): Promise<string | undefined> {
  return findNginx(process.env['PATH']).then(
    () => undefined,
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}

/** A certificate that nobody else trusts, and where its key is. */
export interface TestCertificate {
  readonly pem: string;
  readonly certificateFile: string;
  readonly keyFile: string;
}

/** @param names as in openssl's subjectAltName: `IP:127.0.0.1` */
export async function newCertificate(names: string): Promise<TestCertificate> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'certificate-'));
  const certificateFile = path.join(folder, 'fullchain.pem');
  const keyFile = path.join(folder, 'privkey.pem');
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=test'];
  const files = ['-keyout', keyFile, '-out', certificateFile];
  const command = ['req', '-x509', '-days', '2', ...kind, ...files, '-addext', `subjectAltName=${names}`];
  execFileSync('openssl', command, { stdio: 'pipe' });
  return { pem: await readFile(certificateFile, 'utf8'), certificateFile, keyFile };
}

/** TLS in place of the API's plain port, as docs/nginx.md says; and where port 80 is. */
interface TlsPlace {
  readonly certificate: TestCertificate;
  readonly redirectPort: number;
  /** For `/var/www/acme`. */
  readonly acmeFolder: string;
}

/** An nginx of the test's own in the foreground, with the files of `deploy/nginx` on loopback addresses. */
export async function startNginx(place: Omit<NginxPlace, 'folder'>, tls?: TlsPlace): Promise<RunningProcess> {
  const installation = await findNginx(process.env['PATH']);
  const folder = await mkdtemp(path.join(inject('scratch'), 'nginx-'));
  // as root, its workers run as another user, and keep large bodies there
  await chmod(folder, 0o755);
  const [program, ...args] = await nginxCommand(installation, { ...place, folder });
  if (tls) await addTls(folder, place, tls);
  const nginx = new RunningProcess(program, args, { PATH: installation.path });
  await nginx.waitFor('start worker process ');
  return nginx;
}

/** What docs/nginx.md tells an operator to do with what `nginxCommand` has written. */
async function addTls(folder: string, { address, api }: Omit<NginxPlace, 'folder'>, tls: TlsPlace): Promise<void> {
  const { certificate, redirectPort, acmeFolder } = tls;
  const apiFile = path.join(folder, 'api.conf');
  const tlsFile = path.join(folder, 'tls.conf');
  const plain = `  listen ${address}:${api?.port};`;
  const conf = await readFile(apiFile, 'utf8');
  if (!conf.includes(plain)) throw new Error(`api.conf has no line${plain}`);
  const redirect = (await shipped('redirect.conf'))
    .replaceAll('listen 80;', `listen ${address}:${redirectPort};`)
    .replaceAll('/var/www/acme', acmeFolder);
  await writeFile(apiFile, `${conf.replace(plain, `  include ${tlsFile};`)}\n${redirect}`);
  const ofTls = (await shipped('tls.conf'))
    .replaceAll('listen 443', `listen ${address}:${api?.port}`)
    .replaceAll('/etc/nginx/bore/fullchain.pem', certificate.certificateFile)
    .replaceAll('/etc/nginx/bore/privkey.pem', certificate.keyFile);
  await writeFile(tlsFile, ofTls);
}

function shipped(name: string): Promise<string> {
  return readFile(path.join(PROJECT_DIR, 'deploy/nginx', name), 'utf8');
}
