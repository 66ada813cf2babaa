import { CONTROL_PORT } from '../protocol/frames.js';
import { type Secrets, secretsFile } from './start-secrets.js';
import type { StartSettings } from './start-settings.js';

/** What a message is about. */
export interface MessageOptions<Settings = StartSettings> {
  readonly settings: Settings;
  readonly secrets: Secrets;
  readonly stateDir: string;
  readonly logDir: string;
  /** Show the administrator's password: once, and never again. */
  readonly withPassword: boolean;
}

/** What a newcomer needs to know when everything runs; every command in it works as it stands. */
export function readyMessage(options: MessageOptions): string {
  const { settings, secrets, stateDir, logDir } = options;
  const { host, controlPort, portRange, apiPort } = settings;
  return `
bore-platform runs.

  API             http://${host}:${apiPort}/api/v1, described at http://${host}:${apiPort}/api/docs
  bore-server     ${host}:${controlPort}, with public ports ${portRange.min}–${portRange.max}
  Administrator   ${administrator(options)}
  PostgreSQL      127.0.0.1:${secrets.DB_PORT}, database bore_db, user bore_user
  Data            ${stateDir}
  Logs            ${logDir}

${firstTunnel(settings, stateDir)}
Nothing listens on 8080? ${apiVariable(settings)}npm run demo brings its own.
Ctrl-C stops everything; the next npm start finds its data again.

`;
}

/** The administrator's login: the password once. */
export function administrator({ secrets, stateDir, withPassword }: MessageOptions<unknown>): string {
  const file = secretsFile(stateDir);
  const password = withPassword
    ? `password ${secrets.ADMIN_PASSWORD} (shown this once; kept in ${file})`
    : `password: ADMIN_PASSWORD in ${file}`;
  return `${secrets.ADMIN_EMAIL}, ${password}`;
}

/** Commands that open one. */
export function firstTunnel(settings: StartSettings, stateDir: string): string {
  const { controlPort, localHost, apiPort } = settings;
  return `A first tunnel, in a second terminal in this folder, to whatever listens on port 8080:

  ${borectl(settings)} signup you@example.com
  ${borectl(settings)} open 8080
${controlPort === CONTROL_PORT ? stockClient(`http://${localHost}:${apiPort}/api/v1`, secretsFile(stateDir)) : stockClientMissing(controlPort)}`;
}

function borectl(settings: StartSettings): string {
  return `${apiVariable(settings)}npm run -s borectl --`;
}

/** In front of a command, where the API is not at the address that borectl tries by itself. */
export function apiVariable({ localHost, apiPort }: StartSettings): string {
  const api = `http://${localHost}:${apiPort}`;
  return api === 'http://127.0.0.1:3000' ? '' : `BORE_API=${api} `;
}

/** The password goes through a pipe: what stands on a command line shows in ps. */
function stockClient(api: string, file: string): string {
  const json = `-H 'content-type: application/json'`;
  const field = (name: string): string => `node -pe 'JSON.parse(fs.readFileSync(0)).${name}'`;
  return `
The same with the stock client (cargo install bore-cli), as the administrator:

  . ${quoted(file)}
  token=$(printf '{"email":"%s","password":"%s"}' "$ADMIN_EMAIL" "$ADMIN_PASSWORD" |
    curl -s ${api}/auth/login ${json} -d @- | ${field('accessToken')})
  curl -s ${api}/tunnels -H "authorization: Bearer $token" ${json} -d '{"localPort":8080}' |
    ${field('command')} | sh
`;
}

function stockClientMissing(controlPort: number): string {
  return `
Stock bore clients know port ${CONTROL_PORT} only, and this bore-server is on ${controlPort}: use borectl.
`;
}

function quoted(file: string): string {
  return /^[\w./-]+$/.test(file) ? file : `'${file.replaceAll("'", `'\\''`)}'`;
}
