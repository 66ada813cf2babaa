import { once } from 'node:events';
import http from 'node:http';

import { z } from 'zod';

/** What Alertmanager sends to a Slack webhook, as far as people see it. */
const Message = z.looseObject({
  channel: z.string(),
  attachments: z.tuple([
    z.looseObject({
      title: z.string(),
      title_link: z.string(),
      text: z.string(),
      fallback: z.string(),
      color: z.string(),
    }),
  ]),
});
export type SlackMessage = z.infer<typeof Message>;

/** Stands where Slack is. */
export class SlackReceiver {
  readonly messages: SlackMessage[] = [];

  private constructor(
    private readonly server: http.Server,
    readonly url: string,
  ) {}

  static async start(): Promise<SlackReceiver> {
    const server = http.createServer();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = z.object({ port: z.int() }).parse(server.address());
    const receiver = new SlackReceiver(server, `http://127.0.0.1:${port}/services/T0/B0/secret`);
    server.on('request', (request, response) => {
      let text = '';
      request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      request.on('end', () => {
        receiver.messages.push(Message.parse(JSON.parse(text)));
        response.end('ok');
      });
    });
    return receiver;
  }

  close(): void {
    this.server.close().closeAllConnections();
  }
}
