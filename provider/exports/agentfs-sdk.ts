/** The npm package agentfs-sdk: it opens the same databases as `agentfs`. */

import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

import type * as Sdk from "agentfs-sdk" with { "resolution-mode": "import" };

import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";

/** For a statement over one small table. */
const TIMEOUT_MILLISECONDS = 60_000;

/** A row of a table. */
export type Row = Readonly<Record<string, unknown>>;

/** An open database. */
export interface Database {
  /** The rows of a query. */
  all(sql: string): Promise<readonly Row[]>;
}

/**
 * Opens a copy of a database. Not a database itself: its lock ends with this process, not with this function.
 *
 * @param shownPath How the error names the database.
 * @throws MicroVmError `host-unusable` without the package; `database-unusable` when it is no AgentFS database, is encrypted, or another
 * process has it locked.
 */
export async function withDatabase<Result>(
  path: string,
  shownPath: string,
  act: (database: Database) => Promise<Result>,
): Promise<Result> {
  const { AgentFS } = await loadSdk();
  try {
    const agent = await AgentFS.open({ path });
    try {
      const database = agent.getDatabase();
      return await act({
        all: async (sql) => {
          const statement = database.prepare(sql);
          try {
            return await statement.all();
          } finally {
            statement.close();
          }
        },
      });
    } finally {
      await agent.close();
    }
  } catch (error) {
    throw error instanceof MicroVmError ? error : unusable(shownPath, error);
  }
}

/** Takes from its arguments what to open and what to run there, if the table is there. */
const PROGRAM = `
const [, sdk, path, table, sql] = process.argv;
const { AgentFS } = await import(sdk);
const database = (await AgentFS.open({ path })).getDatabase();
const names = await database.prepare("SELECT name FROM sqlite_master").all();
if (names.some(({ name }) => name === table)) await database.exec(sql);
process.exit();
`;

/**
 * Runs a statement in a database that nobody else has open, if it has a table: in a process of its own, with which the lock ends.
 *
 * @throws MicroVmError as {@link withDatabase}.
 */
export async function runInDatabase(path: string, table: string, sql: string): Promise<void> {
  await loadSdk();
  const sdk = pathToFileURL(createRequire(__filename).resolve("agentfs-sdk")).href;
  const args = ["--input-type=module", "--eval", PROGRAM, sdk, path, table, sql];
  await new Promise<void>((resolve, reject) => {
    execFile(process.execPath, args, { timeout: TIMEOUT_MILLISECONDS }, (error, _, stderr) => {
      if (error === null) return resolve();
      const why = /^\w*Error: .*$/m.exec(stderr)?.[0] ?? messageOf(error);
      reject(unusable(path, new Error(why, { cause: error })));
    });
  });
}

function unusable(path: string, error: unknown): MicroVmError {
  const why = messageOf(error);
  const text = /lock/i.test(why)
    ? `the database ${path} is locked by another process: end the server that has it open`
    : `${path} cannot be read as an AgentFS database that is not encrypted: ${why}`;
  return new MicroVmError("database-unusable", text, { input: "databasePath", cause: error });
}

/** Loaded when first needed, and not installed with this package: its native part has 41 MB. */
async function loadSdk(): Promise<typeof Sdk> {
  try {
    return await import("agentfs-sdk");
  } catch (error) {
    const code = systemCodeOf(error);
    if (code !== "ERR_MODULE_NOT_FOUND" && code !== "MODULE_NOT_FOUND") throw error;
    throw new MicroVmError(
      "host-unusable",
      `opening an AgentFS database takes the npm package agentfs-sdk, or its part for this system: run npm install agentfs-sdk (${messageOf(error).split("\n")[0]})`,
      { cause: error },
    );
  }
}
