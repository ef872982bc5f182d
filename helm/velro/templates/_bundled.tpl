{{/* Servers of one pod for trials, out of official images: what both have. */}}

{{/* A Service for the pod: (dict "root" $ "component" "redis" "suffix" "-redis" "port" 6379). */}}
{{- define "velro.bundledService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "velro.metadata" . | nindent 2 }}
spec:
  selector:
    {{- include "velro.selectorLabels" . | nindent 4 }}
  ports:
    - {name: {{ .component }}, port: {{ .port }}, targetPort: {{ .component }}}
{{- end -}}

{{/* A StatefulSet up to its pod's containers: the old pod is gone before the next begins. Both images have user 999. */}}
{{- define "velro.bundledSet" -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "velro.metadata" . | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ include "velro.fullname" .root }}{{ .suffix }}
  selector:
    matchLabels:
      {{- include "velro.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "velro.selectorLabels" . | nindent 8 }}
    spec:
      {{- include "velro.podBase" .root | nindent 6 }}
      serviceAccountName: {{ include "velro.serviceAccountName" .root }}
      securityContext:
        {{- include "velro.podSecurity" 999 | nindent 8 }}
{{- end -}}
