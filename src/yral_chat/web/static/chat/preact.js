// The one place that names the vendored versions.
import { Component, h, render } from "../vendor/preact-11.2.0.js";
import htm from "../vendor/htm-3.1.1.js";

export { h, render };
export {
  useCallback, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState,
} from "../vendor/preact-hooks-11.2.0.js";

export const html = htm.bind(h);

/** A component that renders again only when one of its props is another object. (Preact keeps memo in compat.) */
export function memo(render) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const now = this.props;
      return Object.keys({ ...now, ...next }).some((key) => now[key] !== next[key]);
    }

    render(props) {
      return h(render, props);
    }
  };
}
