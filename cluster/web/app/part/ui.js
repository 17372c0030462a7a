// Preact, its hooks and htm in one place. `html` makes nodes from a template; every value in it
// is set as text or as a property, never parsed as markup.
import { Fragment, h, render } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export { Fragment, render };
export {
  useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/hooks.mjs";
export const html = htm.bind(h);
