import { createHash } from 'node:crypto';

import { Webhook } from 'standardwebhooks';

import type { Config } from '../platform/config/config.js';
import type { Secret } from '../platform/config/secret.js';
import type { Notification } from './notification.js';
import { sayNotification } from './notification-text.js';

/** Of the SHA-256 of a URL: enough to tell a dozen targets apart, and a URL with a token in it is not found from it. */
const ID_CHARS = 12;

/** Whom notifications are sent to. */
export interface NotificationTarget {
  /** Names it in the database, in logs and answers; its URL is a secret. */
  readonly id: string;
  readonly type: 'slack' | 'webhook';
  readonly url: Secret;
}

/** A POST to be sent. */
export interface Message {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Every target that is set, each once. */
export function targetsOf(config: Pick<Config, 'SLACK_WEBHOOK_URL' | 'WEBHOOK_URLS'>): NotificationTarget[] {
  const slack = config.SLACK_WEBHOOK_URL;
  const webhooks = config.WEBHOOK_URLS.map((url): NotificationTarget => {
    const digest = createHash('sha256').update(url.reveal()).digest('hex');
    return { id: `webhook-${digest.slice(0, ID_CHARS)}`, type: 'webhook', url };
  });
  const all: NotificationTarget[] = [
    ...(slack ? [{ id: 'slack', type: 'slack' as const, url: slack }] : []),
    ...webhooks,
  ];
  return [...new Map(all.map((target) => [target.id, target])).values()];
}

/** What a target is sent of a notification. Made anew for each attempt: the signature holds the time. */
export function messageFor(
  { type }: Pick<NotificationTarget, 'type'>,
  notification: Notification,
  secrets: readonly Secret[],
  now: Date,
): Message {
  return type === 'slack' ? slackMessage(notification) : webhookMessage(notification, secrets, now);
}

const ICONS = { firing: ':rotating_light:', resolved: ':white_check_mark:', occurred: ':information_source:' };

/** Slack takes `<!channel>` and links for commands: escaped, all of it is text (docs.slack.dev, “Escaping text”). */
function slackMessage(notification: Notification): Message {
  const { severity, text } = sayNotification(notification);
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  const body = {
    text: `${ICONS[notification.state]} *${notification.state}* (${severity}) ${escaped}`,
    // no names and links found in the text: what it holds of others’ words stays words
    link_names: false,
    parse: 'none',
    unfurl_links: false,
  };
  return { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}

/** As standardwebhooks.com has it. With several secrets, signed with each: receivers know the old or the new one. */
function webhookMessage(notification: Notification, secrets: readonly Secret[], now: Date): Message {
  const { id, kind, key, state, occurrences, details, at } = notification;
  const type = `${kind}.${state}`;
  const body = JSON.stringify({
    id,
    type,
    kind,
    key,
    state,
    ...sayNotification(notification),
    occurrences,
    timestamp: at,
    details,
  });
  const signatures = secrets.map((secret) => signer(secret.reveal()).sign(id, now, body));
  return {
    headers: {
      'content-type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
      'webhook-signature': signatures.join(' '),
    },
    body,
  };
}

/** `whsec_…` is base64 of the key, anything else the key itself. */
function signer(secret: string): Webhook {
  return secret.startsWith('whsec_') ? new Webhook(secret) : new Webhook(Buffer.from(secret), { format: 'raw' });
}
