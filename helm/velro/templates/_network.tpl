{{/* Rules of network policies that several of them have. */}}

{{/* The cluster's DNS wherever it runs, and the cache on the node. */}}
{{- define "velro.egressDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  to:
    - namespaceSelector: {}
    - ipBlock: {cidr: 169.254.20.10/32}
{{- end -}}

{{/* Ports and peers: (dict "ports" (list 443) "to" (list)). No peers: anywhere. */}}
{{- define "velro.egressTo" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Pods of this release: (dict "root" $ "component" "redis"). */}}
{{- define "velro.ownPods" -}}
- podSelector:
    matchLabels:
      {{- include "velro.selectorLabels" . | nindent 6 }}
{{- end -}}

{{- define "velro.egressDatabase" -}}
{{- if .Values.postgresql.enabled -}}
- ports:
    - {port: 5432, protocol: TCP}
  to:
    {{- include "velro.ownPods" (dict "root" $ "component" "postgresql") | nindent 4 }}
{{- else -}}
{{- include "velro.egressTo" .Values.networkPolicy.database -}}
{{- end -}}
{{- end -}}

{{- define "velro.egressRedis" -}}
{{- if .Values.redis.enabled -}}
- ports:
    - {port: 6379, protocol: TCP}
  to:
    {{- include "velro.ownPods" (dict "root" $ "component" "redis") | nindent 4 }}
{{- else if include "velro.usesRedis" . -}}
{{- include "velro.egressTo" .Values.networkPolicy.redis -}}
{{- end -}}
{{- end -}}

{{/* Providers, Stripe and Supabase: public addresses only. What a provider names is not trusted with the own network or the
     cloud's metadata; Velro refuses private addresses too. */}}
{{- define "velro.egressProviders" -}}
- ports:
    {{- range .Values.networkPolicy.providers.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
    - ipBlock:
        cidr: ::/0
        except: ["::1/128", "fc00::/7", "fe80::/10"]
{{- end -}}

{{/* The collector of traces, by the port of its URL. */}}
{{- define "velro.egressTracing" -}}
{{- with .Values.tracing.endpoint -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
- ports:
    - {port: {{ $port | default (eq $url.scheme "https" | ternary "443" "80") }}, protocol: TCP}
{{- end -}}
{{- end -}}
