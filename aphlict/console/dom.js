// Elements of the page. Whatever comes from the server is untrusted, and becomes text only: never markup.

const MAX_SHOWN = 200; // characters of a name

// Characters that are invisible or change the order of others, as aphlict/printable.py escapes them for logs; and marks
// beyond the third on a character, which would cover other lines. Emoji are joined by U+200D.
const HIDDEN =
  /(?<!\p{Extended_Pictographic}\u{fe0f}?|\p{Emoji_Modifier})\u200d|(?!\u200d)[\p{C}\p{Z}]|(?<=\p{M}{3})\p{M}/gu;

/** @param {string} character */
const escapeOne = (character) => {
  const code = character.codePointAt(0) ?? 0;
  const [letter, length] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return character === " " ? character : `\\${letter}${code.toString(16).padStart(length, "0")}`;
};

/**
 * Return untrusted text without characters that cannot be seen.
 * @param {string} text
 */
export const printable = (text) => text.replace(HIDDEN, escapeOne);

/**
 * Return a name that others have chosen: printable, and not too long.
 * @param {unknown} value
 */
export const nameOf = (value) => {
  const text = String(value);
  const start = [...text.slice(0, 2 * MAX_SHOWN)].slice(0, MAX_SHOWN).join("");
  const more = start.length < text.length ? `… (${text.length.toLocaleString("en")} characters)` : "";
  return printable(start) + more;
};

/**
 * Return an element of the page. Raises an error if there is none.
 * @param {string} id
 * @returns {HTMLElement}
 */
export const find = (id) => {
  const element = document.getElementById(id);
  if (!element) {
    throw new Error(`no element ${id}`);
  }
  return element;
};

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/**
 * Change a text only if it differs, so that selections stay and screen readers repeat nothing.
 * @param {Node} node
 * @param {string} text
 */
export const setText = (node, text) => {
  if (node.textContent !== text) {
    node.textContent = text;
  }
};

/**
 * The words of a level, and the sign before it: never the colour alone.
 * @param {Element} element
 * @param {string} level error, warning, note or good
 */
export const setLevel = (element, level) => {
  element.setAttribute("data-level", level);
};

/**
 * A column of a table. `text` of a row; with `click`, the cell is a button; `level` marks it.
 * @template R
 * @typedef {{
 *   label: string, text: (row: R) => string, click?: (row: R) => void, title?: string,
 *   level?: (row: R) => string, kind?: "number" | "name",
 * }} Column
 */

/**
 * A table whose rows change in place: focus and selection stay where they are.
 * @template R
 */
export class Table {
  /**
   * @param {HTMLElement} place what the table is put into
   * @param {string} caption its name for screen readers
   * @param {Column<R>[]} columns
   * @param {string} empty what is shown instead if there are no rows
   */
  constructor(place, caption, columns, empty) {
    this._columns = columns;
    /** @type {R[]} */
    this._rows = [];
    this._body = make("tbody", { role: "rowgroup" });
    const labels = columns.map(({ label, kind }) =>
      make("th", { scope: "col", role: "columnheader", class: kind ?? "" }, label),
    );
    const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...labels));
    // Roles are given since the narrow layout changes `display`, which would remove them.
    const layout = columns.length > 4 ? "wide" : "";
    this._table = make("table", { role: "table", "aria-label": caption, class: layout }, head, this._body);
    this._empty = make("p", { class: "quiet" }, empty);
    place.append(this._table, this._empty);
  }

  /** @param {R[]} rows */
  update(rows) {
    this._rows = rows;
    this._table.hidden = rows.length === 0;
    this._empty.hidden = rows.length > 0;
    while (this._body.children.length > rows.length) {
      this._body.lastElementChild?.remove();
    }
    rows.forEach((row, index) => {
      const line = this._body.children[index] ?? this._body.appendChild(this._newLine(index));
      this._columns.forEach((column, at) => {
        const cell = /** @type {HTMLElement} */ (line.children[at]?.firstElementChild);
        setText(cell, column.text(row));
        if (column.level) {
          setLevel(cell, column.level(row));
        }
      });
    });
  }

  /** @param {number} index */
  _newLine(index) {
    const cells = this._columns.map(({ label, click, title, kind }) => {
      const content = make(click ? "button" : "span", click ? { type: "button", class: "link" } : {});
      if (click) {
        content.title = title ?? "";
        content.addEventListener("click", () => {
          const row = this._rows[index];
          if (row !== undefined) {
            click(row);
          }
        });
      }
      return make("td", { role: "cell", "data-label": label, class: kind ?? "" }, content);
    });
    return make("tr", { role: "row" }, ...cells);
  }
}
