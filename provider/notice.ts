/** One line for the person at the terminal: what a provider process prints, the engine shows. */
export type Notice = (line: string) => void;

/** Prints a notice where the engine picks it up. */
export const printNotice: Notice = (line) => {
  process.stdout.write(`${line}\n`);
};
