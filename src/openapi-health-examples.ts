/** Names and examples of the bodies of `health/`, as openapi-examples.ts has those of all others. */
import { LogLevelView, SetLogLevelRequest } from './health/log-level.js';
import { StatusView } from './health/status.js';
import { document } from './openapi-examples.js';

document('SetLogLevelRequest', SetLogLevelRequest, { level: 'debug', minutes: 30 });
document('LogLevel', LogLevelView, { level: 'debug', until: '2026-11-25T09:30:00.000Z', configured: 'info' });
document('Status', StatusView, {
  status: 'degraded',
  components: {
    api: 'operational',
    tunnels: 'operational',
    dataPlane: 'degraded',
    events: 'operational',
    jobs: 'operational',
  },
  locations: [
    { location: 'eu-central', state: 'operational' },
    { location: 'us-east', state: 'degraded' },
  ],
  checkedAt: '2026-11-25T09:00:00.000Z',
});
