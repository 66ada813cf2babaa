import { z } from 'zod';

/**
 * An id in a path, in lower case as everything of ours writes it: the database takes either, but what is compared as text does not,
 * such as the audit log's targets and the tunnels that a bore-server knows.
 */
export const ResourceId = z.guid().toLowerCase();
