-- The 120 traits as careful, staged DuckDB SQL: what looks at orders only reads orders, each dimension is counted by
-- value first and by person then, a trend is one weighted sum, and the newest order is found once for all it is asked.
WITH orders AS (
    SELECT person_id,
        count(*) AS orders,
        count(*) FILTER (y) AS orders_365d, count(*) FILTER (h) AS orders_180d, count(*) FILTER (q) AS orders_90d,
        count(*) FILTER (m) AS orders_30d, count(*) FILTER (w) AS orders_7d,
        count(*) FILTER (app) AS app_orders, count(*) FILTER (app AND y) AS app_orders_365d,
        count(*) FILTER (app AND q) AS app_orders_90d,
        count(*) FILTER (web) AS web_orders, count(*) FILTER (web AND y) AS web_orders_365d,
        count(*) FILTER (web AND q) AS web_orders_90d,
        count(*) FILTER (store) AS store_orders, count(*) FILTER (store AND y) AS store_orders_365d,
        count(*) FILTER (store AND q) AS store_orders_90d,
        count(*) FILTER (big) AS big_orders, count(*) FILTER (big AND y) AS big_orders_365d,
        count(*) FILTER (big AND q) AS big_orders_90d,
        sum(amount) AS revenue, sum(amount) FILTER (y) AS revenue_365d, sum(amount) FILTER (h) AS revenue_180d,
        sum(amount) FILTER (q) AS revenue_90d, sum(amount) FILTER (m) AS revenue_30d,
        sum(amount) FILTER (w) AS revenue_7d,
        sum(amount) FILTER (app) AS app_revenue, sum(amount) FILTER (app AND y) AS app_revenue_365d,
        sum(amount) FILTER (app AND q) AS app_revenue_90d,
        sum(amount) FILTER (web) AS web_revenue, sum(amount) FILTER (web AND y) AS web_revenue_365d,
        sum(amount) FILTER (web AND q) AS web_revenue_90d,
        sum(amount) FILTER (store) AS store_revenue, sum(amount) FILTER (store AND y) AS store_revenue_365d,
        sum(amount) FILTER (store AND q) AS store_revenue_90d,
        stddev_samp(amount::DOUBLE) AS order_spread, stddev_samp(amount::DOUBLE) FILTER (y) AS order_spread_365d,
        max(amount) AS biggest_order, max(amount) FILTER (y) AS biggest_order_365d,
        max(amount) FILTER (h) AS biggest_order_180d, max(amount) FILTER (q) AS biggest_order_90d,
        min(amount) AS smallest_order, min(amount) FILTER (y) AS smallest_order_365d,
        min(amount) FILTER (q) AS smallest_order_90d,
        arg_min(said, moment) AS oldest, arg_max(said, moment) AS newest,
        min(age) AS days_since_order, min(age) FILTER (app) AS days_since_app_order,
        min(age) FILTER (store) AS days_since_store_order, max(age) AS days_since_first_order,
        quantile_cont(amount::DOUBLE, [0.5, 0.9]) FILTER (y) AS quantiles,
        sum(amount * (11 - 2 * (age // 30))) FILTER (age < 360)::DOUBLE / 2 / 143 AS revenue_trend_360d,
        sum(11 - 2 * (age // 30)) FILTER (age < 360)::DOUBLE / 2 / 143 AS order_trend_360d,
        sum(pow(0.5, age / 30)) AS order_warmth,
        sum(amount::DOUBLE * pow(0.5, age / 90)) AS spend_warmth
    FROM (
        SELECT person_id, amount, ($day - _day)::INTEGER AS age,
            {'category': category, 'product': product_id, 'channel': channel, 'amount': amount} AS said,
            {'at': occurred_at, 'id': event_id} AS moment,
            age < 365 AS y, age < 180 AS h, age < 90 AS q, age < 30 AS m, age < 7 AS w,
            channel = 'app' AS app, channel = 'web' AS web, channel = 'store' AS store, amount >= 100 AS big
        FROM events WHERE event = 'order_completed' AND _day <= $day
    ) GROUP BY person_id
), order_days AS (
    SELECT person_id,
        (max(age) - min(age)) / nullif(count(*) - 1, 0) AS days_between_orders,
        (max(age) FILTER (age < 365) - min(age)) / nullif(count(*) FILTER (age < 365) - 1, 0)
            AS days_between_orders_365d
    FROM (
        SELECT DISTINCT person_id, ($day - _day)::INTEGER AS age FROM events
        WHERE event = 'order_completed' AND _day <= $day
    ) GROUP BY person_id
), bought AS (
    SELECT person_id, count(*) AS categories, count(*) FILTER (year > 0) AS categories_365d,
        count(*) FILTER (quarter > 0) AS categories_90d,
        arg_min(category, {'n': -ever, 'last': -last, 'value': category}) AS top_category,
        arg_min(category, {'n': -year, 'last': -last, 'value': category}, 3) FILTER (year > 0) AS top_categories_365d
    FROM (
        SELECT person_id, category, count(*) AS ever, count(*) FILTER (_day > $day - 365) AS year,
            count(*) FILTER (_day > $day - 90) AS quarter, epoch_us(max(occurred_at)) AS last
        FROM events WHERE event = 'order_completed' AND _day <= $day AND category IS NOT NULL
        GROUP BY person_id, category
    ) GROUP BY person_id
), through AS (
    SELECT person_id, count(*) AS channels, count(*) FILTER (year > 0) AS channels_365d,
        arg_min(channel, {'n': -year, 'last': -last, 'value': channel}) FILTER (year > 0) AS top_channel_365d
    FROM (
        SELECT person_id, channel, count(*) FILTER (_day > $day - 365) AS year, epoch_us(max(occurred_at)) AS last
        FROM events WHERE event = 'order_completed' AND _day <= $day AND channel IS NOT NULL
        GROUP BY person_id, channel
    ) GROUP BY person_id
), products AS (
    SELECT person_id, count(*) AS products_365d FROM (
        SELECT DISTINCT person_id, product_id FROM events
        WHERE event = 'order_completed' AND product_id IS NOT NULL AND _day <= $day AND _day > $day - 365
    ) GROUP BY person_id
), viewing AS (
    SELECT person_id,
        count(*) FILTER (s) AS views, count(*) FILTER (s AND y) AS views_365d, count(*) FILTER (s AND q) AS views_90d,
        count(*) FILTER (s AND m) AS views_30d, count(*) FILTER (s AND age < 7) AS views_7d,
        count(*) FILTER (p AND y) AS product_views_365d, count(*) FILTER (p AND q) AS product_views_90d,
        count(*) FILTER (p AND m) AS product_views_30d,
        count(*) FILTER (o) AS opens, count(*) FILTER (o AND y) AS opens_365d, count(*) FILTER (o AND q) AS opens_90d,
        count(*) FILTER (o AND m) AS opens_30d,
        arg_max(said, moment) FILTER (p) AS newest,
        arg_max(channel, moment) FILTER (s AND q) AS last_view_channel_90d,
        min(age) FILTER (s) AS days_since_view, min(age) FILTER (p) AS days_since_product_view,
        min(age) FILTER (o) AS days_since_open, max(age) FILTER (s) AS days_since_first_view,
        sum(11 - 2 * (age // 7)) FILTER (s AND age < 84)::DOUBLE / 2 / 143 AS view_trend_84d,
        sum(pow(0.5, age / 14)) FILTER (s) AS view_warmth
    FROM (
        SELECT person_id, channel, ($day - _day)::INTEGER AS age, {'product': product_id, 'category': category} AS said,
            {'at': occurred_at, 'id': event_id} AS moment, age < 365 AS y, age < 90 AS q, age < 30 AS m,
            event IN ('page_viewed', 'product_viewed') AS s, event = 'product_viewed' AS p, event = 'email_opened' AS o
        FROM events WHERE event IN ('page_viewed', 'product_viewed', 'email_opened') AND _day <= $day
    ) GROUP BY person_id
), viewed AS (
    SELECT person_id, count(*) AS viewed_products_90d, count(*) FILTER (month > 0) AS viewed_products_30d,
        arg_min(product_id, {'n': -quarter, 'last': -last, 'value': product_id}, 3) AS top_viewed_products_90d
    FROM (
        SELECT person_id, product_id, count(*) AS quarter, count(*) FILTER (_day > $day - 30) AS month,
            epoch_us(max(occurred_at)) AS last
        FROM events WHERE event = 'product_viewed' AND _day <= $day AND _day > $day - 90 AND product_id IS NOT NULL
        GROUP BY person_id, product_id
    ) GROUP BY person_id
), looked AS (
    SELECT person_id, count(*) AS viewed_categories_365d, count(*) FILTER (quarter > 0) AS viewed_categories_90d,
        arg_min(category, {'n': -year, 'last': -last, 'value': category}) AS top_viewed_category_365d,
        arg_min(category, {'n': -quarter, 'last': -last, 'value': category}) FILTER (quarter > 0)
            AS top_viewed_category_90d
    FROM (
        SELECT person_id, category, count(*) AS year, count(*) FILTER (_day > $day - 90) AS quarter,
            epoch_us(max(occurred_at)) AS last
        FROM events WHERE event = 'product_viewed' AND _day <= $day AND _day > $day - 365 AND category IS NOT NULL
        GROUP BY person_id, category
    ) GROUP BY person_id
), found AS (
    SELECT * EXCLUDE (newest, oldest, quantiles, top_categories_365d),
        revenue / nullif(orders, 0) AS order_value, revenue_365d / nullif(orders_365d, 0) AS order_value_365d,
        revenue_180d / nullif(orders_180d, 0) AS order_value_180d,
        revenue_90d / nullif(orders_90d, 0) AS order_value_90d, revenue_30d / nullif(orders_30d, 0) AS order_value_30d,
        app_revenue_365d / nullif(app_orders_365d, 0) AS app_order_value_365d,
        web_revenue_365d / nullif(web_orders_365d, 0) AS web_order_value_365d,
        store_revenue_365d / nullif(store_orders_365d, 0) AS store_order_value_365d,
        oldest.category AS first_category, oldest.product AS first_product, oldest.channel AS first_channel,
        oldest.amount AS first_amount,
        orders.newest.category AS last_category, orders.newest.product AS last_product,
        orders.newest.channel AS last_channel,
        CASE WHEN orders_90d > 0 THEN orders.newest.channel END AS last_channel_90d,
        orders.newest.amount AS last_amount,
        viewing.newest.product AS last_viewed_product, viewing.newest.category AS last_viewed_category,
        quantiles[1] AS median_order_365d, quantiles[2] AS high_order_365d,
        top_categories_365d, top_categories_365d[1] AS top_category_365d,
        top_viewed_products_90d[1] AS top_viewed_product_90d
    FROM people LEFT JOIN orders USING (person_id) LEFT JOIN order_days USING (person_id)
    LEFT JOIN bought USING (person_id) LEFT JOIN through USING (person_id) LEFT JOIN products USING (person_id)
    LEFT JOIN viewing USING (person_id) LEFT JOIN viewed USING (person_id) LEFT JOIN looked USING (person_id)
)
SELECT person_id, $day AS day, $columns FROM found
