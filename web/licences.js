// Writes public/assets/licences.txt: the licences of the code in the page.
import { readFileSync, writeFileSync } from "node:fs";

const packages = ["preact", "@preact/signals", "@preact/signals-core", "fflate"];
const parts = packages.map((name) => {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const text = readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim();
  return `== ${name} ${version}\n\n${text}\n`;
});
const head = "The page of tipserve holds code of these packages.\n\n";
writeFileSync("public/assets/licences.txt", head + parts.join("\n"));
