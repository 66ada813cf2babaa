/** Bodies of the routes of notifications, as in openapi-examples.ts, which is long enough. */
import { NotificationView, TestNotificationAnswer } from './notifications/notification.js';
import { document } from './openapi-examples.js';

const ID = '7e0c3c5e-0c5d-4d0e-9a36-3a0f5c8c1f41';
const NOW = '2026-11-25T09:00:00.000Z';

document('Notification', NotificationView, {
  id: ID,
  kind: 'server.lost',
  key: 'eu-1',
  state: 'firing',
  severity: 'critical',
  text: 'bore-server eu-1 (eu-central) is lost: its lease has ended, with 42 tunnels open.',
  occurrences: 1,
  at: NOW,
  deliveries: [
    { target: 'slack', state: 'sent', attempts: 1, dueAt: null, finishedAt: NOW, failure: null },
    {
      target: 'webhook-5f1c0a9be2d4',
      state: 'pending',
      attempts: 1,
      dueAt: NOW,
      finishedAt: null,
      failure: 'answered 503',
    },
  ],
});
document('TestNotificationAnswer', TestNotificationAnswer, { id: ID, targets: ['slack', 'webhook-5f1c0a9be2d4'] });
