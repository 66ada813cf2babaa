import helmet from '@fastify/helmet';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';

/** Answers are data: nothing in them is to be run, framed or sent anywhere. */
const API_POLICY = { defaultSrc: ["'none'"], baseUri: ["'none'"], formAction: ["'none'"], frameAncestors: ["'none'"] };

/** The page that shows the API: scripts from here only, its style element, images that its style sheet brings along. */
const DOCS_POLICY = {
  ...API_POLICY,
  defaultSrc: ["'self'"],
  styleSrc: ["'self'", "'unsafe-inline'"],
  imgSrc: ["'self'", 'data:'],
};

/** Where the page is served. */
export const DOCS_PATH = 'api/docs';

/**
 * Security headers on every answer, and `Cache-Control: no-store` on those that say nothing of it themselves.
 *
 * No `Strict-Transport-Security`: it counts for all ports of a host, and the tunnels' public ports, which may be on the same
 * host, speak whatever their owners like. Whoever ends TLS in front of us knows whether that is so, and sends it there.
 */
export async function sendSecurityHeaders(app: NestFastifyApplication): Promise<void> {
  const server = app.getHttpAdapter().getInstance();
  server.addHook('onRoute', (route) => {
    if (route.url === `/${DOCS_PATH}` || route.url.startsWith(`/${DOCS_PATH}/`))
      route.config = {
        ...route.config,
        helmet: { contentSecurityPolicy: { useDefaults: false, directives: DOCS_POLICY } },
      };
  });
  server.addHook('onSend', async (_request, reply) => {
    if (!reply.hasHeader('cache-control')) void reply.header('cache-control', 'no-store');
  });
  await app.register(helmet, {
    contentSecurityPolicy: { useDefaults: false, directives: API_POLICY },
    referrerPolicy: { policy: 'no-referrer' },
    xFrameOptions: { action: 'deny' },
    strictTransportSecurity: false,
    // a browser's page of another origin that CORS allows must be able to read the answer
    crossOriginResourcePolicy: { policy: 'cross-origin' },
  });
}
