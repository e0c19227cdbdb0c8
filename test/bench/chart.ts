/** The figures that are seconds, as one picture. */

import { init } from "echarts";
import { type Figure, ratioOf } from "./figures.js";

const ROW_PIXELS = 44;

/** An SVG: for each figure two bars, the baseline's and ours, with their ratio. Shorter is better. */
export function chart(figures: readonly Figure[], machine: string): string {
  const drawn = figures.filter(({ unit, baseline }) => unit === "s" && baseline !== undefined);
  const picture = init(null, null, {
    renderer: "svg",
    ssr: true,
    width: 860,
    height: 110 + drawn.length * ROW_PIXELS,
  });
  const bars = { type: "bar", barWidth: 13, barGap: "15%" } as const;
  try {
    picture.setOption({
      animation: false,
      backgroundColor: "#ffffff",
      title: { text: "Seconds, shorter is better", subtext: machine, textStyle: { fontSize: 15 } },
      legend: { bottom: 4, data: ["baseline", "pulumi-microvm"] },
      grid: { left: 10, right: 120, top: 64, bottom: 36, containLabel: true },
      xAxis: { type: "value" },
      yAxis: {
        type: "category",
        inverse: true,
        axisTick: { show: false },
        data: drawn.map(({ name, baseline }) => `${name}\nagainst ${baseline?.name}`),
      },
      series: [
        {
          ...bars,
          name: "baseline",
          color: "#b8bcc4",
          data: drawn.map(({ baseline }) => baseline?.value ?? 0),
        },
        {
          ...bars,
          name: "pulumi-microvm",
          color: "#2563a8",
          data: drawn.map(({ ours }) => ours.value),
          label: {
            show: true,
            position: "right",
            formatter: ({ dataIndex }: { dataIndex: number }) => {
              const figure = drawn[dataIndex];
              return figure === undefined
                ? ""
                : `${figure.ours.value.toFixed(2)} s, ${ratioOf(figure)?.toFixed(2)} ×`;
            },
          },
        },
      ],
    });
    return picture.renderToSVGString();
  } finally {
    // A picture keeps its process alive.
    picture.dispose();
  }
}
