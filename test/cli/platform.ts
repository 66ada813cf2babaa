import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { PASSWORD, Person } from './borectl.js';

export const ADMIN_EMAIL = 'admin@example.com';
const PORTS = { min: 14_000, max: 14_099 };

/** A backend and a bore-server with an address of its own, so that suites may run side by side. */
export class Platform {
  private readonly people: Person[] = [];
  private count = 0;

  private constructor(
    readonly address: string,
    readonly database: TestDatabase,
    public backend: Backend,
    public server: BoreServerProcess,
    private readonly env: NodeJS.ProcessEnv,
  ) {}

  static async start(address: string, env: NodeJS.ProcessEnv = {}): Promise<Platform> {
    const database = await createDatabase();
    const settings = {
      ADMIN_EMAIL,
      ADMIN_PASSWORD: PASSWORD,
      RESERVED_CAPACITY_PERCENT: '0',
      PLAN_FREE_TUNNELS: '100',
      HEARTBEAT_INTERVAL_MS: '200',
      SERVER_LEASE_SECONDS: '60',
      ...env,
    };
    const backend = await startBackend({ database, env: settings });
    const server = await startBoreServer({ backend, address, ports: PORTS });
    return new Platform(address, database, backend, server, settings);
  }

  /** Starts the bore-server anew, on the same ports. */
  async restartServer(): Promise<void> {
    const { controlPort } = this.server;
    this.server = await startBoreServer({ backend: this.backend, address: this.address, ports: PORTS, controlPort });
  }

  /** Starts the backend anew, on the same port. */
  async restartBackend(): Promise<void> {
    const env = { ...this.env, PORT: new URL(this.backend.url).port };
    this.backend = await startBackend({ database: this.database, env });
  }

  /** Somebody with borectl who has signed up. */
  async newUser(): Promise<Person> {
    const person = await this.newPerson();
    const { code, stderr } = await person.run(['signup', `user${this.count++}@example.com`]);
    if (code !== 0) throw new Error(stderr);
    return person;
  }

  /** Somebody with borectl and no account. */
  async newPerson(): Promise<Person> {
    const person = await Person.at(this.backend.url);
    this.people.push(person);
    return person;
  }

  /** The API as somebody of {@link newUser} sees it. */
  async apiOf(person: Person): Promise<Api> {
    const { accessToken } = await credentialsOf(person);
    return new Api(this.backend.url).withToken(accessToken);
  }

  async stop(): Promise<void> {
    for (const person of this.people) await person.leave();
    await this.server.stop();
    await this.backend.stop();
    await this.database.drop();
  }
}

/** What borectl has stored for a person's platform. */
export async function credentialsOf(person: Person): Promise<Record<'accessToken' | 'refreshToken' | 'email', string>> {
  return (await person.credentials()).platforms[person.api] ?? { accessToken: '', refreshToken: '', email: '' };
}
