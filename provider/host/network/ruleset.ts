/** Our tables in nftables as they are, and changing them: each change is one transaction of nft(8), all of it or nothing. */

import { z } from "zod";

import { CommandError, run } from "./command.js";
import {
  additionsOf,
  type BridgedServer,
  commentOf,
  FAMILIES,
  type Family,
  type RuledVm,
  serverAdditions,
  TABLE,
} from "./rules.js";

/** A rule that is there. */
interface ListedRule {
  readonly family: Family;
  readonly chain: string;
  readonly handle: number;
  readonly comment?: string;
}

/** One family's table of ours. */
interface ListedTable {
  readonly family: Family;
  readonly rules: readonly ListedRule[];
}

/** What `nft -json list table` prints (libnftables-json(5)), as far as it is read. */
const listing = z.object({
  nftables: z.array(
    z.looseObject({
      rule: z
        .looseObject({ chain: z.string(), handle: z.number(), comment: z.string().optional() })
        .optional(),
    }),
  ),
});

/**
 * Gives a VM exactly its rules: those that it had go in the same transaction.
 *
 * @param isNew Whether it has never had any, so that there is nothing to look for.
 */
export async function setRules(vm: RuledVm, isNew = false): Promise<void> {
  if (isNew) await transact(additionsOf(vm));
  else await change(vm.instance, additionsOf(vm));
}

/** Keeps a server to this host and whoever is on its bridge; the rules that the instance had go in the same transaction. */
export async function setServerRules(instance: string, server: BridgedServer): Promise<void> {
  await change(instance, serverAdditions(instance, server));
}

/** Removes the rules of an instance, and with the last rule of a family our table in it. */
export async function removeRules(instance: string): Promise<void> {
  await change(instance, []);
}

async function change(instance: string, additions: readonly string[]): Promise<void> {
  const tables = await listTables();
  const isUnused = ({ family, rules }: ListedTable) =>
    rules.every(({ comment }) => comment === commentOf(instance)) &&
    !additions.some((line) => line.startsWith(`add table ${family} `));
  await transact([
    ...deletionsOf(tables, instance),
    ...tables.filter(isUnused).map(({ family }) => `delete table ${family} ${TABLE}`),
    ...additions,
  ]);
}

function deletionsOf(tables: readonly ListedTable[], instance: string): string[] {
  return tables.flatMap(({ rules }) =>
    rules
      .filter(({ comment }) => comment === commentOf(instance))
      .map(({ family, chain, handle }) => `delete rule ${family} ${TABLE} ${chain} handle ${handle}`),
  );
}

async function transact(commands: readonly string[]): Promise<void> {
  if (commands.length > 0) await run("nft", ["-f", "-"], `${commands.join("\n")}\n`);
}

async function listTables(): Promise<ListedTable[]> {
  const tables = await Promise.all(FAMILIES.map(async (family) => await listTable(family)));
  return tables.filter((table) => table !== undefined);
}

async function listTable(family: Family): Promise<ListedTable | undefined> {
  let text: string;
  try {
    text = await run("nft", ["-json", "list", "table", family, TABLE]);
  } catch (error) {
    if (error instanceof CommandError && error.output.includes("No such file or directory")) return undefined;
    throw error;
  }
  const { nftables } = listing.parse(JSON.parse(text));
  return { family, rules: nftables.flatMap(({ rule }) => (rule === undefined ? [] : [{ ...rule, family }])) };
}
