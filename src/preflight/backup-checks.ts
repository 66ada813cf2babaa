import { stat } from 'node:fs/promises';

import { BackupError } from '../backup/backup-error.js';
import { listBackups } from '../backup/backup-folder.js';
import type { Config } from '../platform/config/config.js';
import { fail, type Finding, type Group, notChecked, pass } from './finding.js';

const HOUR_MS = 3_600_000;

/** @param hours how old the latest may be */
export function backupChecks(config: Config, folder: string | undefined, hours: number): Group {
  return {
    name: 'Backup',
    checks: [
      {
        id: 'backup',
        title: 'there is a recent backup',
        run: () =>
          folder === undefined
            ? notChecked('no --backup-dir', 'where npm run backup keeps them; by other means: look by hand')
            : recent(config, folder, hours),
      },
    ],
  };
}

async function recent({ DB_NAME }: Config, folder: string, hours: number): Promise<Finding> {
  const mend = 'npm run backup, by a timer (docs/backup.md); npm run backup:verify looks into one';
  const backups = await listBackups(folder).catch((error: unknown) => {
    if (error instanceof BackupError) return error;
    throw error;
  });
  if (backups instanceof BackupError) return fail(backups.message, mend);
  const latest = backups.find(({ manifest }) => manifest.database === DB_NAME);
  if (!latest) return fail(`${folder} holds none of ${DB_NAME}`, mend);
  const { dump, manifest } = latest;
  const age = (Date.now() - Date.parse(manifest.takenAt)) / HOUR_MS;
  if (age > hours) return fail(`the latest is of ${manifest.takenAt}, ${Math.floor(age)} hours ago`, mend);
  const { size } = await stat(dump);
  if (size !== manifest.bytes) return fail(`${dump} has ${size} bytes, and not ${manifest.bytes}`, mend);
  return pass(`${manifest.takenAt}, ${manifest.bytes} bytes`);
}
