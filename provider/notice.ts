/** One line for the person at the terminal: what a provider process prints, the engine shows. */
export type Notice = (line: string) => void;

/** Prints a notice where the engine picks it up. */
export const printNotice: Notice = (line) => {
  process.stdout.write(`${line}\n`);
};

const printed = new Set<string>();

/** Prints a notice once per process: the engine checks a resource again when it names its replacement. */
export const printOnce: Notice = (line) => {
  if (printed.has(line)) return;
  printed.add(line);
  printNotice(line);
};
