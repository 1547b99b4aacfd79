// SPDX-License-Identifier: Apache-2.0
'use strict';

// Server-side rendering with react-dom: a page from the request's path.
const { createElement: h } = require('react');
const { renderToString } = require('react-dom/server');

const products = [
	{ id: 1, name: 'Kettle', price: 29.9 },
	{ id: 2, name: 'Teapot', price: 24.5 },
	{ id: 3, name: 'Cup', price: 6.0 },
];

function Product({ product }) {
	return h('li', { className: 'product' }, h('b', null, product.name), ` ${product.price.toFixed(2)} EUR`);
}

function Page({ path }) {
	return h('html', { lang: 'en' },
		h('head', null, h('title', null, 'Tea shop')),
		h('body', null,
			h('h1', null, 'Tea shop'),
			h('p', null, `You asked for ${path}`),
			h('ul', null, products.map((product) => h(Product, { key: product.id, product })))));
}

exports.handler = (req, res) => {
	res.setHeader('content-type', 'text/html; charset=utf-8');
	res.end(`<!doctype html>${renderToString(h(Page, { path: req.url }))}`);
};
