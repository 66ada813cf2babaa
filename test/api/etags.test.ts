/** Entity tags: who has seen what, and that no change is made to what nobody has seen. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  server = await plane.newServer('s1', 10_000, 1_000);
  user = await plane.newUser();
});

afterAll(() => plane?.stop());

const open = async (body: object = {}) => (await user.post('/api/v1/tunnels', body)).body;
const get = (id: string, tag?: string) =>
  user.send('GET', `/api/v1/tunnels/${id}`, undefined, tag === undefined ? {} : { 'if-none-match': tag });
const tagOf = async (id: string) => (await get(id)).headers.get('etag') ?? '';
const patch = (id: string, body: object, tag: string, as = user) =>
  as.send('PATCH', `/api/v1/tunnels/${id}`, JSON.stringify(body), {
    'content-type': 'application/json',
    'if-match': tag,
  });
const remove = (id: string, tag: string) =>
  user.send('DELETE', `/api/v1/tunnels/${id}`, undefined, { 'if-match': tag });

describe('an ETag', () => {
  it('is strong, the same at every backend, and saves the body of what has not changed', async () => {
    const { id } = await open();
    const tag = await tagOf(id);
    expect(tag).toMatch(/^"\d+-[0-9a-f]{16}"$/);
    expect((await user.at(plane.url(1)).get(`/api/v1/tunnels/${id}`)).headers.get('etag')).toBe(tag);
    for (const known of [tag, `W/${tag}`, `"other", ${tag}`, '*']) {
      expect(await get(id, known)).toMatchObject({ status: 304, text: '' });
    }
    expect((await get(id, tag)).headers.get('etag')).toBe(tag);
    for (const other of ['"other"', `${tag.slice(0, -1)}0"`]) expect((await get(id, other)).status).toBe(200);
  });

  it('changes with whatever the view shows: settings, the client, the server, the end', async () => {
    const { id, token, port } = await open();
    const seen = [await tagOf(id)];
    await user.patch(`/api/v1/tunnels/${id}`, { labels: { a: 'b' } });
    seen.push(await tagOf(id));
    await server.authorize(token, port);
    seen.push(await tagOf(id));
    await plane.database.query(`UPDATE servers SET location = 'moved' WHERE id = 's1'`);
    seen.push(await tagOf(id));
    await user.delete(`/api/v1/tunnels/${id}`);
    seen.push(await tagOf(id));
    expect(new Set(seen).size).toBe(5);
    // and not with what changes nothing
    expect(await tagOf(id)).toBe(seen.at(-1));
  });
});

describe('If-Match', () => {
  it('lets a change through that has seen the latest, and answers with the next tag', async () => {
    const { id } = await open();
    const tag = await tagOf(id);
    const changed = await patch(id, { maxConnections: 1 }, tag);
    expect(changed.status).toBe(200);
    expect(changed.headers.get('etag')).toBe(await tagOf(id));
    expect(changed.headers.get('etag')).not.toBe(tag);
    expect(await patch(id, { maxConnections: 2 }, tag)).toMatchObject({
      status: 412,
      body: { code: 'PRECONDITION_FAILED' },
    });
    for (const never of ['"other"', `W/${await tagOf(id)}`]) {
      expect((await patch(id, { maxConnections: 2 }, never)).status).toBe(412);
    }
    expect((await get(id)).body.maxConnections).toBe(1);
    expect((await patch(id, { maxConnections: 3 }, '*')).status).toBe(200);
    expect((await patch(id, { maxConnections: 4 }, `"other", ${await tagOf(id)}`)).status).toBe(200);
    expect((await patch(id, { maxConnections: 5 }, 'no tag')).status).toBe(400);
  });

  it('loses no update of 20 at the same time over 2 backends: one is made', async () => {
    const { id } = await open();
    const tag = await tagOf(id);
    const users = [user, user.at(plane.url(1))];
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => patch(id, { maxConnections: i + 1 }, tag, users[i % 2])),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 412)).toHaveLength(19);
    const made = answers.findIndex(({ status }) => status === 200) + 1;
    expect((await get(id)).body.maxConnections).toBe(made);
  });

  it('keeps a tunnel from being deleted that has changed since', async () => {
    const { id } = await open();
    const tag = await tagOf(id);
    await user.patch(`/api/v1/tunnels/${id}`, { maxConnections: 1 });
    expect(await remove(id, tag)).toMatchObject({ status: 412, body: { code: 'PRECONDITION_FAILED' } });
    expect((await get(id)).body.state).toBe('pending');
    expect((await remove(id, await tagOf(id))).status).toBe(204);
    expect((await remove(id, tag)).status).toBe(412);
    expect((await remove(id, await tagOf(id))).status).toBe(204);
    expect(await patch(id, { maxConnections: 2 }, await tagOf(id))).toMatchObject({
      status: 409,
      body: { code: 'TUNNEL_CLOSED' },
    });
  });
});
