import { defineConfig } from "vite";

// The output is committed, so it must not depend on the machine: names by
// content, no dates, no source maps.
export default defineConfig({
  base: "/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    assetsDir: "assets",
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  // For working on the page: a server of your own beneath it.
  server: { proxy: { "/v1": "http://127.0.0.1:50051" } },
  test: { include: ["tests/**/*.test.ts"], setupFiles: ["tests/setup.ts"] },
});
